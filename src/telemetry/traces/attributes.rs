//! Names of attributes. Their values are ids, counts and our own words, never a header, an address, or a text from a client or
//! an endpoint.

pub const ENDPOINT: &str = "gridtokenx.endpoint";
pub const JOB_ID: &str = "gridtokenx.job_id";
pub const OUTCOME: &str = "gridtokenx.outcome";
pub const READING_ID: &str = "gridtokenx.reading_id";
pub const READINGS: &str = "gridtokenx.readings";
pub const SIGNATURE: &str = "gridtokenx.signature";
pub const SLOT: &str = "gridtokenx.slot";
pub const TRANSACTION_NUMBER: &str = "gridtokenx.transaction_number";
// From OpenTelemetry's semantic conventions.
pub const HTTP_METHOD: &str = "http.request.method";
pub const HTTP_ROUTE: &str = "http.route";
pub const HTTP_STATUS: &str = "http.response.status_code";
pub const RPC_METHOD: &str = "rpc.method";
pub const RPC_SYSTEM: &str = "rpc.system";
