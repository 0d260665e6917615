//! The caller of a request, and its role.

/// An operator, or one who only looks: in the extensions of a request, where the authentication that
/// an embedder puts around [`Admin::router`](crate::Admin::router) leaves it. A request without one
/// is taken for an operator's, since it passed the authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Where the request came from, for the audit log.
    pub(crate) peer: Option<String>,
    /// What changing requests must carry in `Oncekey-Csrf`, when a browser adds the credentials to
    /// requests that other sites make.
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
    /// May look and act. The audit log shows `name`.
    pub fn operator(name: impl Into<String>) -> Self {
        Self { name: name.into(), role: Role::Operator, peer: None, csrf: None }
    }

    /// May look.
    pub fn viewer(name: impl Into<String>) -> Self {
        Self { role: Role::Viewer, ..Self::operator(name) }
    }
}
