//! The caller of a request, and its role.

/// The operator or viewer who sends a request. The authentication that an embedder puts around
/// [`Admin::router`](crate::Admin::router) leaves one in the extensions of the request. A request without one
/// counts as an operator's, since it passed the authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The address of the client, for the audit log.
    pub(crate) peer: Option<String>,
    /// The value that changing requests must carry in `Oncekey-Csrf`. Set when a browser adds the credentials
    /// by itself, also to requests that other sites cause.
    pub(crate) csrf: Option<String>,
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
