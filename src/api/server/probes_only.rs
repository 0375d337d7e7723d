//! While it drains or is overloaded, the server answers probes and scrapes only.

/// Marks a request on which only probes and scrapes are answered, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbesOnly {
    /// It came after the drain began.
    Draining,
    /// All connections for callers were in use.
    Overloaded,
}

impl ProbesOnly {
    /// The answer to every other request.
    pub fn sentence(self) -> &'static str {
        match self {
            ProbesOnly::Draining => {
                "this process is shutting down; send the request again, and another one answers"
            }
            ProbesOnly::Overloaded => {
                "this process has as many connections as it serves; send the request again, to another process if there is one"
            }
        }
    }
}
