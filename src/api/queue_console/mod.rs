//! The queue console: the board of apalis under `/admin/queue`, for admins, read-only.
//!
//! Invariant: only an admin sees the queue here, and no request changes it. Kept in three ways: each request needs a session, which
//! is checked each time; methods other than GET and HEAD are refused; and the console queries over its own connections, which the
//! database makes read-only.
//!
//! | file | what it does |
//! |---|---|
//! | `session` | login, logout, and the check of every request |
//! | `request_origin` | whether a request comes from a page of the service itself |
//! | `ui` | the pages of the board, rewritten to work under this path |
//! | `board` | the data that they show |
//! | `router` | the routes |

mod board;
mod request_origin;
pub(super) mod router;
mod session;
mod ui;
