//! Classifies the errors of the database.
//!
//! Invariant: every decision on an SQLSTATE code, or on a variant of [`sqlx::Error`], is made here. A caller matches the
//! [`SqlCondition`] where it must distinguish two conditions of one class, and the [`ErrorClass`] otherwise.
//!
//! The codes are those of the PostgreSQL manual, appendix A ("PostgreSQL Error Codes"): two characters of class, three of
//! condition.

/// The condition with which a statement failed. Each belongs to one [`ErrorClass`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SqlCondition {
    /// The server did not answer, or no connection to it was available.
    NoAnswer,
    /// This side of the connection failed in another way: a broken protocol, a missing row or column, a misuse of sqlx.
    ClientFailure,
    /// A value has no representation in SQL, or a stored value none in the program.
    BadValue,
    /// 40001, 40P01: another transaction won; PostgreSQL rolled this one back.
    SerializationConflict,
    /// 40xxx: rolled back for another reason.
    RolledBack,
    /// 55P03: a lock was not free in time.
    LockTimeout,
    /// 25006: the server is read-only, as a standby is.
    ReadOnly,
    /// 25P03: the transaction idled past `idle_in_transaction_session_timeout`.
    IdleInTransactionTimeout,
    /// 57P03, 53300: the server is alive and takes no connection now: it starts, recovers, shuts down, or is full.
    RefusesConnections,
    /// 08xxx, 53xxx, 57xxx: the connection broke, resources ran out, an operator or a limit intervened.
    CannotServe,
    /// 58xxx: input or output failed on the server.
    SystemError,
    /// 28xxx, 42xxx, XXxxx: names or rights that this program expects are missing, or PostgreSQL failed internally.
    SchemaMismatch,
    /// 23505: a unique index refused the row.
    UniqueViolation,
    /// Any other code: the database refuses a value or a row.
    BadRow,
}

/// The class of an error: how its caller reacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Another transaction was in the way: try again at once.
    Retryable,
    /// The database cannot be reached or cannot write: try again later.
    Unavailable,
    /// The database refuses this very value or row; others may pass.
    BadRow,
    /// The schema is not what this program expects: no row is to blame, and trying again does not help.
    SchemaMismatch,
}

impl SqlCondition {
    pub fn of(error: &sqlx::Error) -> SqlCondition {
        match error {
            sqlx::Error::Database(refusal) => {
                SqlCondition::of_code(refusal.code().as_deref().unwrap_or_default())
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => SqlCondition::NoAnswer,
            sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
                SqlCondition::BadValue
            }
            _ => SqlCondition::ClientFailure,
        }
    }

    /// By SQLSTATE; of an empty one nothing is known but that the database refused.
    fn of_code(code: &str) -> SqlCondition {
        match code {
            "23505" => SqlCondition::UniqueViolation,
            "25006" => SqlCondition::ReadOnly,
            "25P03" => SqlCondition::IdleInTransactionTimeout,
            "40001" | "40P01" => SqlCondition::SerializationConflict,
            "53300" | "57P03" => SqlCondition::RefusesConnections,
            "55P03" => SqlCondition::LockTimeout,
            _ => match code.get(..2) {
                Some("08" | "53" | "57") => SqlCondition::CannotServe,
                Some("28" | "42" | "XX") => SqlCondition::SchemaMismatch,
                Some("40") => SqlCondition::RolledBack,
                Some("58") => SqlCondition::SystemError,
                _ => SqlCondition::BadRow,
            },
        }
    }

    pub fn class(self) -> ErrorClass {
        match self {
            SqlCondition::SerializationConflict | SqlCondition::LockTimeout => {
                ErrorClass::Retryable
            }
            SqlCondition::NoAnswer
            | SqlCondition::ClientFailure
            | SqlCondition::ReadOnly
            | SqlCondition::IdleInTransactionTimeout
            | SqlCondition::RefusesConnections
            | SqlCondition::CannotServe
            | SqlCondition::SystemError => ErrorClass::Unavailable,
            SqlCondition::SchemaMismatch => ErrorClass::SchemaMismatch,
            SqlCondition::BadValue
            | SqlCondition::RolledBack
            | SqlCondition::UniqueViolation
            | SqlCondition::BadRow => ErrorClass::BadRow,
        }
    }
}

impl ErrorClass {
    pub fn of(error: &sqlx::Error) -> ErrorClass {
        SqlCondition::of(error).class()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::error::Error as StdError;
    use std::fmt;

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    /// A refusal with this SQLSTATE, or with none.
    #[derive(Debug)]
    struct Refusal(Option<&'static str>);

    impl fmt::Display for Refusal {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "{:?}", self.0)
        }
    }

    impl StdError for Refusal {}

    impl DatabaseError for Refusal {
        fn message(&self) -> &str {
            "refused"
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            self.0.map(Cow::Borrowed)
        }

        fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn refusal(code: impl Into<Option<&'static str>>) -> sqlx::Error {
        sqlx::Error::Database(Box::new(Refusal(code.into())))
    }

    #[test]
    fn each_code_has_its_condition_and_class() {
        use ErrorClass::{BadRow, Retryable, SchemaMismatch, Unavailable};
        for (code, condition, class) in [
            ("40001", SqlCondition::SerializationConflict, Retryable),
            ("40P01", SqlCondition::SerializationConflict, Retryable),
            ("55P03", SqlCondition::LockTimeout, Retryable),
            ("40002", SqlCondition::RolledBack, BadRow),
            ("25006", SqlCondition::ReadOnly, Unavailable),
            ("25P03", SqlCondition::IdleInTransactionTimeout, Unavailable),
            ("53300", SqlCondition::RefusesConnections, Unavailable),
            ("57P03", SqlCondition::RefusesConnections, Unavailable),
            ("08006", SqlCondition::CannotServe, Unavailable),
            ("53100", SqlCondition::CannotServe, Unavailable),
            ("57014", SqlCondition::CannotServe, Unavailable),
            ("57P01", SqlCondition::CannotServe, Unavailable),
            ("58030", SqlCondition::SystemError, Unavailable),
            ("28P01", SqlCondition::SchemaMismatch, SchemaMismatch),
            ("42P01", SqlCondition::SchemaMismatch, SchemaMismatch),
            ("XX001", SqlCondition::SchemaMismatch, SchemaMismatch),
            ("23505", SqlCondition::UniqueViolation, BadRow),
            ("23514", SqlCondition::BadRow, BadRow),
            ("22003", SqlCondition::BadRow, BadRow),
            ("25P02", SqlCondition::BadRow, BadRow),
            ("", SqlCondition::BadRow, BadRow),
        ] {
            let error = refusal(code);
            assert_eq!(SqlCondition::of(&error), condition, "{code}");
            assert_eq!(ErrorClass::of(&error), class, "{code}");
        }
        assert_eq!(SqlCondition::of(&refusal(None)), SqlCondition::BadRow);
    }

    #[test]
    fn an_error_without_a_servers_answer_is_classified_by_its_variant() {
        let silent = std::io::Error::from(std::io::ErrorKind::TimedOut);
        for (error, condition, class) in [
            (
                sqlx::Error::Io(silent),
                SqlCondition::NoAnswer,
                ErrorClass::Unavailable,
            ),
            (
                sqlx::Error::Tls("a bad certificate".into()),
                SqlCondition::NoAnswer,
                ErrorClass::Unavailable,
            ),
            (
                sqlx::Error::PoolTimedOut,
                SqlCondition::NoAnswer,
                ErrorClass::Unavailable,
            ),
            (
                sqlx::Error::PoolClosed,
                SqlCondition::NoAnswer,
                ErrorClass::Unavailable,
            ),
            (
                sqlx::Error::WorkerCrashed,
                SqlCondition::NoAnswer,
                ErrorClass::Unavailable,
            ),
            (
                sqlx::Error::Protocol("garbage".to_owned()),
                SqlCondition::ClientFailure,
                ErrorClass::Unavailable,
            ),
            (
                sqlx::Error::RowNotFound,
                SqlCondition::ClientFailure,
                ErrorClass::Unavailable,
            ),
            (
                sqlx::Error::Encode("too large".into()),
                SqlCondition::BadValue,
                ErrorClass::BadRow,
            ),
            (
                sqlx::Error::Decode("no state".into()),
                SqlCondition::BadValue,
                ErrorClass::BadRow,
            ),
        ] {
            assert_eq!(SqlCondition::of(&error), condition, "{error}");
            assert_eq!(ErrorClass::of(&error), class, "{error}");
        }
    }
}
