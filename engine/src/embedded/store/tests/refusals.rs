//! Store files that an open refuses, each by its kind, and leaves untouched.

use super::damage::refused;
use super::*;

#[test]
fn what_can_not_be_opened_is_classified_and_left_untouched() {
    let dir = Dir::new();
    assert_eq!(open(&dir).err().unwrap().kind(), ErrorKind::StoreMissing);
    assert!(!Store::exists(&*dir.handle()).unwrap());
    let mut noise = Noise::new(8);
    let garbage: Vec<u8> = (0..50_000).map(|_| noise.next() as u8).collect();
    for (bytes, kind) in [
        (&b""[..], ErrorKind::StoreEmpty),
        (b"r", ErrorKind::StoreTruncated),
        (b"something else", ErrorKind::StoreForeign),
        (b"redb\x1a\x0a\xa9\x0d\x0a and no more", ErrorKind::StoreTruncated),
        (&garbage, ErrorKind::StoreForeign),
    ] {
        std::fs::write(dir.file(), bytes).unwrap();
        refused(&dir, kind);
    }
    std::fs::remove_file(dir.file()).unwrap();

    let foreign = ::redb::Database::create(dir.file()).unwrap();
    foreign.close().unwrap();
    refused(&dir, ErrorKind::StoreForeign);
    std::fs::remove_file(dir.file()).unwrap();
    let foreign = ::redb::Database::create(dir.file()).unwrap();
    let transaction = foreign.begin_write().unwrap();
    let table = ::redb::TableDefinition::<&str, &str>::new("state");
    transaction.open_table(table).unwrap().insert("a", "b").unwrap();
    transaction.commit().unwrap();
    // Not closed cleanly, so that redb repairs it on the way.
    let unclean = std::fs::read(dir.file()).unwrap();
    foreign.close().unwrap();
    refused(&dir, ErrorKind::StoreForeign);
    std::fs::write(dir.file(), unclean).unwrap();
    refused(&dir, ErrorKind::StoreForeign);
}

#[test]
fn damage_to_a_store_is_classified_and_left_untouched() {
    let mut fixture = Fixture::new();
    fixture.fold_completed(0..500, 5_000, &[5; 500]);
    let unclean = std::fs::read(fixture.dir.file()).unwrap();
    let Fixture { dir, store, .. } = fixture;
    store.close().unwrap();
    let clean = std::fs::read(dir.file()).unwrap();
    for whole in [&clean, &unclean] {
        for keep in [100, 319, 320, 4096, 10_000, whole.len() / 2, whole.len() - 1] {
            std::fs::write(dir.file(), &whole[..keep]).unwrap();
            refused(&dir, ErrorKind::StoreTruncated);
        }
    }
    std::fs::write(dir.file(), &unclean).unwrap();
    assert_eq!(open(&dir).unwrap().view().entries(), 500);
}

#[test]
fn a_newer_format_is_refused_before_anything_is_written() {
    let fixture = Fixture::new();
    let mut row = fixture.store.state().encode();
    row[0] += 1;
    let end = row.len() - 8;
    let sealed = crate::base::codec::checksum(0x6f6e_6365_6b65_7901, &row[..end]);
    row[end..].copy_from_slice(&sealed.to_le_bytes());
    let Fixture { dir, store, .. } = fixture;
    store.close().unwrap();
    let database = ::redb::Database::open(dir.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(STATE).unwrap().insert(STATE_KEY, row.as_slice()).unwrap();
    transaction.commit().unwrap();
    let unclean = std::fs::read(dir.file()).unwrap();
    database.close().unwrap();
    refused(&dir, ErrorKind::StoreNewerFormat);
    std::fs::write(dir.file(), &unclean).unwrap();
    refused(&dir, ErrorKind::StoreNewerFormat);

    // A file of a newer redb; with a broken slot it is only damage.
    let mut file = unclean;
    let slot = if file[9] & 1 == 0 { 64..192 } else { 192..320 };
    file[slot.start] = 4;
    std::fs::write(dir.file(), &file).unwrap();
    refused(&dir, ErrorKind::Corrupted);
    let sum = xxhash_rust::xxh3::xxh3_128(&file[slot.start..slot.end - 16]);
    file[slot.end - 16..slot.end].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(dir.file(), &file).unwrap();
    refused(&dir, ErrorKind::StoreNewerFormat);
}

/// A file of several regions is too large for a test, so only its header is checked.
#[test]
fn a_file_is_as_long_as_its_layout_says_or_refused() {
    let dir = Dir::new();
    let layout: [u32; 5] = [4096, 3, 5, 7, 2];
    let mut header = vec![0; 4096];
    header[..9].copy_from_slice(b"redb\x1a\x0a\xa9\x0d\x0a");
    for (field, at) in layout.into_iter().zip((12..).step_by(4)) {
        header[at..at + 4].copy_from_slice(&field.to_le_bytes());
    }
    std::fs::write(dir.file(), header).unwrap();
    let file = dir.handle().open(FILE, Caching::Buffered).unwrap();
    // The header's page, seven whole regions, and one of two pages.
    let expected = 4096 * (1 + 7 * (3 + 5) + 3 + 2);
    file.set_len(expected).unwrap();
    super::super::redb::storage::inspect(&*file).unwrap();
    file.set_len(expected - 1).unwrap();
    assert_eq!(
        super::super::redb::storage::inspect(&*file).unwrap_err().kind(),
        ErrorKind::StoreTruncated
    );
    // As much longer as a crash may leave it, and not more.
    file.set_len(2 * expected + (8 << 30)).unwrap();
    super::super::redb::storage::inspect(&*file).unwrap();
    file.set_len(2 * expected + (8 << 30) + 1).unwrap();
    assert_eq!(
        super::super::redb::storage::inspect(&*file).unwrap_err().kind(),
        ErrorKind::Corrupted
    );
    // Without a region that is not whole there is no header of one.
    file.write_at(28, &0_u32.to_le_bytes()).unwrap();
    file.set_len(4096 * (1 + 7 * (3 + 5))).unwrap();
    super::super::redb::storage::inspect(&*file).unwrap();
}
