//! The routes of the queue console.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::response::Redirect;
use axum::routing::{get, post};

use super::ui::{self, PREFIX, Pages};
use super::{board, session};
use crate::api::state::AppState;

/// The form has one token.
const LOGIN_BYTES_MAX: usize = 16 * 1024;

pub fn routes(state: &AppState) -> Router<AppState> {
    let pages = Arc::new(Pages::new());
    let behind_the_login = Router::new()
        .route("/api/v1/events", get(board::no_events))
        .nest_service("/api/v1", board::routes(&state.pool))
        .fallback(move |uri| ui::page(Arc::clone(&pages), uri))
        .layer(middleware::from_fn_with_state(
            state.clone(),
            session::require,
        ));
    let login = Router::new()
        .route("/login", get(session::login_page).post(session::login))
        .route("/logout", post(session::logout))
        .layer(DefaultBodyLimit::max(LOGIN_BYTES_MAX));
    Router::new()
        .nest(PREFIX, behind_the_login.merge(login))
        // The board's own link to its start page.
        .route(&format!("{PREFIX}/"), get(async || Redirect::to(PREFIX)))
}
