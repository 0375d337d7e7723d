//! The caller of a query: every query about meters and readings is answered for one.

/// The permissions that a token grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sees, and submits for, their own meters.
    User,
    /// Sees and does everything.
    Admin,
}

/// The authenticated caller of a request or a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// JWT `sub`: the owner of meters.
    pub subject: String,
    pub role: Role,
}

impl Caller {
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// Whether this caller may see what belongs to `owner`.
    pub fn may_see(&self, owner: &str) -> bool {
        self.is_admin() || self.subject == owner
    }
}
