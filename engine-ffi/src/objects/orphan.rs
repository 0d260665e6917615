//! Orphans as C holds them.

use crate::boundary::handle_table::Table;

pub(crate) static ORPHANS: Table<oncekey::Orphan> = Table::new(3);
