//! Orphans behind the handles of C.

use crate::boundary::handle_table::Table;

pub(crate) static ORPHANS: Table<oncekey::Orphan> = Table::new(3);
