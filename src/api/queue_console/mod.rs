//! The queue console: apalis' own board under `/admin/queue`, for admins, to look at.
//!
//! Invariant: nobody but an admin sees anything of the queue here, and nobody changes anything. Kept three times over: each
//! request needs a session that is checked anew; whatever is not GET or HEAD is refused; and the console reads over
//! connections of its own that the database lets write nothing.
//!
//! | file | what it does |
//! |---|---|
//! | `session` | login, logout, and who may pass |
//! | `origin` | whether a request comes from a page of our own |
//! | `ui` | the board's pages, made to work under this address |
//! | `board` | the figures that they show |

mod board;
mod origin;
mod session;
mod ui;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::response::Redirect;
use axum::routing::{get, post};

use crate::api::state::AppState;
use ui::Pages;

/// Where it lives. The cookie is sent nowhere else.
const PREFIX: &str = "/admin/queue";

/// A login holds one token.
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
        // The board's own link home.
        .route(&format!("{PREFIX}/"), get(async || Redirect::to(PREFIX)))
}
