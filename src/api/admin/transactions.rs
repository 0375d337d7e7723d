//! `POST /api/admin/tokenization/transactions/{signature}/resolve`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin;
use crate::api::auth::authenticated::AdminOnly;
use crate::api::chain_access::ChainAccess;
use crate::api::extract::{JsonBody, Path};
use crate::api::problem::{Problem, ProblemDocument};
use crate::api::problem_kind::ProblemKind;
use crate::api::state::AppState;
use crate::domain::{MintTransactionState, TxSignature};
use crate::ledger::QuarantineOutcome;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(resolve))
}

#[derive(Debug, Deserialize, ToSchema)]
struct ResolveTransaction {
    /// `landed`: it is on chain, which the service verifies. `dead`: it never landed and never will, for which the admin is responsible.
    #[schema(example = "landed")]
    outcome: String,
    /// For the admin log, 1 to 500 characters.
    reason: String,
}

impl ResolveTransaction {
    fn outcome(&self) -> Result<QuarantineOutcome, Problem> {
        [QuarantineOutcome::Landed, QuarantineOutcome::Dead]
            .into_iter()
            .find(|outcome| outcome.as_str() == self.outcome)
            .ok_or_else(|| {
                Problem::new(
                    ProblemKind::ValidationFailed,
                    format!(
                        "outcome {:?} is not valid; give \"landed\" or \"dead\"",
                        self.outcome.chars().take(64).collect::<String>()
                    ),
                )
            })
    }
}

/// The transaction as it is now.
#[derive(Debug, Serialize, ToSchema)]
struct TransactionResolved {
    success: bool,
    transaction_signature: String,
    #[schema(value_type = String, example = "confirmed")]
    state: MintTransactionState,
    /// Readings that it paid, or that another transaction pays now.
    readings: u64,
    /// The effect, in words.
    message: &'static str,
}

/// Ends a quarantined mint transaction about which no endpoint can prove anything.
///
/// The chain cannot be contradicted: `landed` is refused while no endpoint shows the transaction, `dead` while one does, and both
/// before it has expired. After `dead` another transaction pays its readings, and it stays watched: if it turns out to have
/// landed, the ledger breaker opens.
#[utoipa::path(
    post,
    path = "/api/admin/tokenization/transactions/{signature}/resolve",
    tag = "admin",
    security(("bearer" = [])),
    params(("signature" = String, Path, description = "Base58")),
    request_body(content = ResolveTransaction, example = json!({
        "outcome": "dead",
        "reason": "three explorers with full history do not know it",
    })),
    responses(
        (status = 200, description = "Ended, and logged", body = TransactionResolved, example = json!({
            "success": true,
            "transaction_signature": "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW",
            "state": "dead",
            "readings": 19,
            "message": "its readings are paid by another transaction; it stays watched",
        })),
        (status = 404, description = "Not a transaction of this service", body = ProblemDocument,
         content_type = "application/problem+json"),
        (status = 409, description = "Not quarantined (see `state`), not expired, or contradicted by the chain",
         body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
async fn resolve(
    AdminOnly(principal): AdminOnly,
    State(pool): State<PgPool>,
    State(chain): State<ChainAccess>,
    Path(signature): Path<String>,
    JsonBody(request): JsonBody<ResolveTransaction>,
) -> Result<Json<TransactionResolved>, Problem> {
    let signature: TxSignature = signature.parse().map_err(|_| {
        Problem::new(
            ProblemKind::MalformedRequest,
            "the path does not name a transaction: a signature is 64 bytes in base58",
        )
    })?;
    let outcome = request.outcome()?;
    let resolution = admin::resolve_transaction(
        &pool,
        &chain.endpoints,
        &principal.caller.subject,
        signature,
        outcome,
        &request.reason,
    )
    .await?;
    Ok(Json(TransactionResolved {
        success: true,
        transaction_signature: signature.to_string(),
        state: resolution.state,
        readings: resolution.readings,
        message: match outcome {
            QuarantineOutcome::Landed => "its readings are minted; they are finalized with it",
            QuarantineOutcome::Dead => {
                "its readings are paid by another transaction; it stays watched"
            }
        },
    }))
}
