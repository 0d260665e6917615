//! The place of keys and responses.

use std::fmt;
use std::path::{Path, PathBuf};

/// A store, in the form of `--store`. Neither `Display` nor `Debug` shows a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum StoreAt {
    /// Used by this process alone.
    Directory(PathBuf),
    /// Shared by many processes; holds the URL of the database.
    Postgres(String),
}

impl StoreAt {
    /// Reads `postgres://…`, or the path of a directory.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        if text.contains("://") {
            return Err(format!("{text:?}: a store is a directory or postgres://…"));
        }
        match text {
            "" => Err("a store needs a name".to_owned()),
            _ => Ok(Self::Directory(text.into())),
        }
    }

    pub(crate) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }

    /// Whether the store is in a directory that a restart of the machine empties.
    pub(crate) fn is_in_memory(&self) -> bool {
        /// Source: statfs(2).
        const TMPFS: i64 = 0x0102_1994;
        #[allow(clippy::unnecessary_cast, reason = "its width differs from machine to machine")]
        let is_tmpfs = |path: &Path| {
            rustix::fs::statfs(path).is_ok_and(|filesystem| filesystem.f_type as i64 == TMPFS)
        };
        self.volume().is_some_and(is_tmpfs)
    }

    /// The nearest existing parent directory, in which the rest of the path is made.
    pub(crate) fn volume(&self) -> Option<&Path> {
        let path = self.directory()?;
        Some(path.ancestors().find(|path| path.exists()).unwrap_or(Path::new(".")))
    }
}

impl fmt::Display for StoreAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Postgres(url) => f.write_str(&without_secrets(url)),
        }
    }
}

impl fmt::Debug for StoreAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The URL with `***` in place of its password, before the host or in the query. A part that might belong to
/// a password is not shown either: a password may contain an unescaped `@`, `/` or `?`.
pub(crate) fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let (user, place) =
        rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
    let user = user.map_or(String::new(), |user| match user.split_once(':') {
        Some((user, _)) if !user.contains(['/', '?']) => format!("{user}:***@"),
        None if !user.contains(['/', '?']) => format!("{user}@"),
        _ => "***@".to_owned(),
    });
    let (place, query) =
        place.split_once('?').map_or((place, None), |(place, query)| (place, Some(query)));
    let shown = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if name.contains("pass") || name.contains("key") => format!("{name}=***"),
        _ => pair.to_owned(),
    };
    let query = query.map_or(String::new(), |query| {
        format!("?{}", query.split('&').map(shown).collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{user}{place}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_directory_or_a_database() {
        assert_eq!(StoreAt::parse("./keys"), Ok(StoreAt::Directory("./keys".into())));
        assert!(matches!(StoreAt::parse("postgresql://h/d"), Ok(StoreAt::Postgres(_))));
        for wrong in ["", "mysql://h", "http://h"] {
            assert!(StoreAt::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_password_is_shown() {
        for (url, shown) in [
            ("postgres://app:secret@db/x", "postgres://app:***@db/x"),
            ("postgres://app:se@cr/et@db:5432/x", "postgres://app:***@db:5432/x"),
            ("postgres://app@db,db2/x?sslmode=require", "postgres://app@db,db2/x?sslmode=require"),
            ("postgres://db/x?user=a&password=secret", "postgres://db/x?user=a&password=***"),
            ("postgres:///x?host=/run/pg", "postgres:///x?host=/run/pg"),
            ("postgres://db/x?password=secret&application_name=a@b", "postgres://***@b"),
            ("postgres://me:secret@db/x?application_name=a@b", "postgres://me:***@b"),
        ] {
            let store = StoreAt::parse(url).unwrap();
            assert_eq!(
                (store.to_string(), format!("{store:?}")),
                (shown.to_owned(), shown.to_owned())
            );
        }
    }
}
