//! The engines that run inside the program, each with the settings that suit this work best.

#[cfg(feature = "engines")]
pub mod fjall;
#[cfg(feature = "engines")]
pub mod lmdb;
pub mod oncekey;
pub mod raw;
#[cfg(feature = "engines")]
pub mod redb;
#[cfg(feature = "engines")]
pub mod rocksdb;
#[cfg(feature = "engines")]
pub mod sqlite;

/// The cache that every rival with a setting for it gets: a tenth of the machine's memory.
pub fn cache_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)) / 10
}
