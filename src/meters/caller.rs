//! The caller of a query: every query about meters and readings is answered for one.

/// The permissions that a token grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sees, and submits for, their own meters.
    User,
    /// Sees and does everything.
    Admin,
}

impl Role {
    /// The name that tokens and the database use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::Admin => "admin",
        }
    }

    /// The role of this name; `None` for any other text.
    pub fn parse(name: &str) -> Option<Role> {
        [Role::User, Role::Admin]
            .into_iter()
            .find(|role| role.as_str() == name)
    }
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
