//! The caller of a request, and its role.

use std::fmt;

/// The operator or viewer who sends a request. The authentication that an embedder puts around
/// [`Admin::router`](crate::Admin::router) leaves one in the extensions of the request. A request without one
/// counts as an operator's, since it passed the authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct Caller {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The address of the client, for the audit log.
    pub(crate) peer: Option<String>,
    /// The value that changing requests must carry in `Oncekey-Csrf`. Set when a browser adds the credentials
    /// by itself, also to requests that other sites cause.
    pub(crate) csrf: Option<String>,
}

/// Without the secret against other sites.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("name", &self.name)
            .field("role", &self.role)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// The rights of a [`Caller`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Viewer,
    Operator,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }
}

impl Caller {
    /// A caller who may see and change. The audit log shows `name`.
    pub fn operator(name: impl Into<String>) -> Self {
        Self { name: name.into(), role: Role::Operator, peer: None, csrf: None }
    }

    /// A caller who may see but not change.
    pub fn viewer(name: impl Into<String>) -> Self {
        Self { role: Role::Viewer, ..Self::operator(name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_printed_without_its_secret() {
        let csrf = Some("PRIVATE".to_owned());
        let caller = Caller { csrf, ..Caller::operator("ann") };
        let printed = format!("{caller:?}");
        assert!(printed.contains("ann") && !printed.contains("PRIVATE"), "{printed}");
    }
}
