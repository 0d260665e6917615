//! How much a granted claim survives.

/// When `begin` may report that a claim is granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Durability {
    /// Every answer that confirms a change waits until the change is synced to disk. Survives `kill
    /// -9`, a crash of the operating system and a power loss.
    #[default]
    Strict,
    /// `begin` grants a claim once it is written, before it is synced; everything else waits as in
    /// `Strict`. Survives `kill -9`. After a power loss the claim may be forgotten, and a retry may
    /// then run the operation a second time.
    Relaxed,
}
