//! The one error type of the crate.

use std::fmt;
use std::sync::Arc;

/// Generates `ErrorKind`, the list of its kinds and their sentences from one list.
macro_rules! kinds {
    ($($(#[$meaning:meta])* $kind:ident: $sentence:literal,)*) => {
        /// The kind of an error, for programs. Ordinary outcomes of [`begin`](crate::Engine::begin) are
        /// values, never errors; every kind here means that something failed or was refused.
        ///
        /// | after this kind | a begin | the end of a claim (`complete`, `abort`) |
        /// |---|---|---|
        /// | `InvalidInput` | correct the call | the claim comes back: correct the call |
        /// | `Overloaded`, `StoreFull` | try again later | the claim comes back: try again later |
        /// | `OutcomeUnknown`, `Unavailable` | [reopen](crate::Engine::reopen), then begin again | the claim comes back: reopen, then end it again |
        /// | `Fenced`, `AlreadyCompleted` | | the claim is spent: another caller decided, do not
        /// send this response |
        /// | `Closed` | give up; the next open knows all that was acknowledged | the claim comes back, and is an orphan at the next open |
        /// | `Corrupted` | give up this key, look at the store with [`verify`](crate::verify) | as for a begin |
        /// | `HistoryLost`, `UnsafeStore` | an operator decides | the claim comes back |
        ///
        /// A caller whose begin failed must not execute. The kinds that only opening reports
        /// (`StoreMissing` to `NetworkFilesystem`, `ClockJump`) leave the store untouched.
        ///
        /// ```
        /// use oncekey::ErrorKind;
        ///
        /// enum Next { TryLater, Reopen, GiveUp }
        ///
        /// fn after(kind: ErrorKind) -> Next {
        ///     match kind {
        ///         ErrorKind::Overloaded | ErrorKind::StoreFull => Next::TryLater,
        ///         ErrorKind::OutcomeUnknown | ErrorKind::Unavailable => Next::Reopen,
        ///         _ => Next::GiveUp,
        ///     }
        /// }
        /// # assert!(matches!(after(ErrorKind::Overloaded), Next::TryLater));
        /// # assert!(matches!(after(ErrorKind::Unavailable), Next::Reopen));
        /// # assert!(matches!(after(ErrorKind::Fenced), Next::GiveUp));
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $($(#[$meaning])* $kind,)*
        }

        impl ErrorKind {
            /// Every kind of this version, for interfaces that map them.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// A short sentence for people.
            fn describe(self) -> &'static str {
                match self {
                    $(Self::$kind => $sentence,)*
                }
            }
        }
    };
}

kinds! {
    /// A key, scope, response, checkpoint or option is outside its documented limits. Nothing happened.
    InvalidInput: "invalid input",
    /// The token is not the newest for its key: another caller took over, or the record expired or was freed.
    Fenced: "fenced: this token is no longer the newest for its key",
    /// The key was already completed, with other bytes or by another token.
    AlreadyCompleted: "the key was already completed",
    /// A write or sync failed while the operation was under way: it may or may not have happened.
    /// [`Engine::reopen`](crate::Engine::reopen) settles it.
    OutcomeUnknown: "outcome unknown: the write may or may not have happened",
    /// The engine refuses writes after an earlier failure, and [`Engine::reopen`](crate::Engine::reopen)
    /// recovers in place. Of a shared store: the server cannot be reached, or gave no answer.
    Unavailable: "the store is unavailable",
    /// A bound was reached (queue, claims in flight, orphans, waiters, memory not yet folded, files that
    /// the process or the system may have open). Nothing happened; try again later.
    Overloaded: "overloaded: a bound was reached, try again later",
    /// The disk, or the configured store size, is full. Nothing happened.
    StoreFull: "the store is full",
    /// The engine was closed.
    Closed: "the engine is closed",
    /// `open_existing` found no store.
    StoreMissing: "no store here",
    /// Another process, or another engine of this process, holds the store.
    StoreInUse: "the store is in use",
    /// The store file has no bytes. It was left untouched.
    StoreEmpty: "the store file is empty",
    /// Bytes at the end of the store file that were durable are missing. It was left untouched.
    StoreTruncated: "the store file is truncated",
    /// The directory or file is not a oncekey store. It was left untouched.
    StoreForeign: "not a oncekey store",
    /// The store was written by a newer version of oncekey. It was left untouched.
    StoreNewerFormat: "the store was written by a newer version of oncekey",
    /// The store cannot be read or written with the rights of this process. It was left untouched.
    StoreUnreadable: "the store cannot be accessed",
    /// The store lies on a network filesystem, whose locks and syncs cannot be trusted.
    NetworkFilesystem: "the store lies on a network filesystem",
    /// Stored bytes fail their checksum, or something that must exist is missing.
    Corrupted: "the store is corrupted",
    /// The wall clock stands further ahead of the store's last time than the limit.
    ClockJump: "the wall clock jumped forward",
    /// The operating system reported an error that no other kind describes.
    Io: "input/output error",
    /// The settings of a shared server cannot keep what the engine promises. Nothing was written.
    UnsafeStore: "the settings of the server are not safe for a store",
    /// A shared server lacks changes that were acknowledged: a server without them took its place.
    /// The engine grants nothing until an operator accepts the loss.
    HistoryLost: "the server lost changes that it had acknowledged",
    /// This kind of store does not support the call.
    Unsupported: "not supported by this kind of store",
}

/// A failure: [`kind`](Error::kind) is for programs, `Display` (one line) is for people, and
/// `source` is the cause.
///
/// Cheap to clone, because one failed sync is reported to every caller of its group.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The kind of the error, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The details beyond the kind.
    pub(crate) fn context(&self) -> &str {
        &self.0.context
    }

    pub(crate) fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, context: one_line(context.into()), source: None }))
    }

    pub(crate) fn caused_by(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let source = Some(source.into());
        Self(Arc::new(Inner { kind, context: one_line(context.into()), source }))
    }

    pub(crate) fn invalid(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, context)
    }

    /// A file of the store lost its name while the store is open.
    pub(crate) fn gone(name: &str) -> Self {
        let message = format!("{name} was removed or replaced while the store is open");
        Self::new(ErrorKind::StoreMissing, message)
    }

    pub(crate) fn corrupted(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupted, context)
    }

    /// Classifies an operating system error: a full disk, missing rights, a shortage of descriptors,
    /// and another thing in the place of a file get kinds of their own.
    pub(crate) fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind::{InvalidData, IsADirectory};
        let kind = match source.kind() {
            InvalidData | IsADirectory => {
                let context = format!("{}: {source}", context.into());
                return Self::caused_by(ErrorKind::Corrupted, context, source);
            }
            _ if is_lack_of_space(&source) => ErrorKind::StoreFull,
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                ErrorKind::StoreUnreadable
            }
            _ if is_descriptor_shortage(&source) => ErrorKind::Overloaded,
            _ => ErrorKind::Io,
        };
        Self::caused_by(kind, context, source)
    }

    /// Whether the work failed for lack of space or of descriptors, so that it may be tried again
    /// unchanged.
    pub(crate) fn is_shortage(&self) -> bool {
        matches!(self.kind(), ErrorKind::StoreFull | ErrorKind::Overloaded)
    }

    /// The same failure, as reported to a caller whose write was under way.
    pub(crate) fn as_outcome_unknown(&self) -> Self {
        Self::caused_by(ErrorKind::OutcomeUnknown, "the group was not made durable", self.clone())
    }
}

/// The message with line breaks and control characters escaped, so that a log entry stays one line.
/// Paths and foreign messages contain such characters.
fn one_line(message: String) -> String {
    // `char::is_control` does not cover Unicode's line and paragraph separators.
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if !message.contains(breaks) {
        return message;
    }
    let mut line = String::with_capacity(message.len() + 8);
    for c in message.chars() {
        if breaks(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// Too many open files: in the process (`EMFILE`), in the system (`ENFILE`). Every Unix has the
/// same numbers.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// Whether an operation found no space: the disk is full, or a quota or the largest size of a file is reached.
pub(crate) fn is_lack_of_space(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Whether a file could not be opened because the process or the system has too many open.
pub(crate) fn is_descriptor_shortage(error: &std::io::Error) -> bool {
    error.raw_os_error().is_some_and(|raw| [EMFILE, ENFILE].contains(&raw))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.kind.describe())?;
        if !self.0.context.is_empty() {
            write!(f, ": {}", self.0.context)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("context", &self.0.context)
            .field("source", &self.0.source)
            .finish()
    }
}

/// `kind` for programs, `message` for people.
#[cfg(feature = "serde")]
impl serde::Serialize for Error {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("Error", 2)?;
        fields.serialize_field("kind", &format_args!("{:?}", self.0.kind))?;
        fields.serialize_field("message", &format_args!("{self}"))?;
        fields.end()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_is_in_it() {
        let nasty = "a\nb\r\nc\td\u{1b}[31me\0f\u{85}g\u{2028}h\u{2029}i\u{7f}j \u{e4}";
        let broken = std::io::Error::other(nasty);
        let errors = [
            Error::new(ErrorKind::Io, nasty),
            Error::invalid(nasty),
            Error::corrupted(nasty.to_owned()),
            Error::gone(nasty),
            Error::io(nasty, broken),
            Error::caused_by(ErrorKind::Closed, Error::invalid(nasty).to_string(), nasty),
        ];
        for error in errors {
            let message = error.to_string();
            assert!(!message.contains(char::is_control), "{message:?}");
            assert!(!message.contains(['\u{2028}', '\u{2029}']), "{message:?}");
            assert!(message.contains("a\\nb\\r\\nc\\td\\u{1b}[31me\\u{0}f"), "{message}");
            assert!(message.contains("j \u{e4}"), "other letters stay: {message}");
        }
    }
}
