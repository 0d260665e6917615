//! The damage of a trial: one change to the bytes of one file.

use super::*;

/// Damages a file. Returns the file and the range of its bytes, `None` when nothing changed.
pub(super) fn damage(disk: &SimDisk, random: &mut Random) -> Option<(PathBuf, Range<u64>)> {
    let files: Vec<_> = disk.files().into_iter().map(|(path, _)| path).collect();
    let part = ["store.redb", "records-", "run-", "journal-"][random.below(4) as usize];
    let named: Vec<_> = files.iter().filter(|path| path.to_string_lossy().contains(part)).collect();
    if named.is_empty() {
        return None;
    }
    let path = named[random.below(named.len() as u64) as usize].clone();
    let bytes = disk.read_file(&path);
    let blocks = bytes.len() as u64 / BLOCK;
    if bytes.is_empty() {
        // A segment that is only being created.
        return None;
    }
    if blocks == 0 {
        // A small run.
        let start = random.below(bytes.len() as u64);
        let end = (start + [1, 8, 200][random.below(3) as usize]).min(bytes.len() as u64);
        match random.below(4) {
            0 => disk.truncate(&path, start),
            1 => disk.flip_bit(&path, start, random.below(8) as u32),
            2 => disk.write_bytes(&path, start, &vec![0; (end - start) as usize]),
            _ => {
                let noise: Vec<_> = (start..end).map(|_| random.below(256) as u8).collect();
                disk.write_bytes(&path, start, &noise);
            }
        }
        return (disk.read_file(&path) != bytes).then_some((path, start..bytes.len() as u64));
    }
    let used: Vec<_> = (0..blocks)
        .filter(|block| {
            let start = (block * BLOCK) as usize;
            bytes[start..start + BLOCK as usize].iter().any(|byte| *byte != 0)
        })
        .collect();
    // Mostly where there is data: most of a segment is zeros.
    let block = |random: &mut Random| match random.below(8) {
        0 => random.below(blocks),
        _ if used.is_empty() => random.below(blocks),
        _ => used[random.below(used.len() as u64) as usize],
    };
    let target = block(random);
    let start = target * BLOCK;
    let whole = start..start + BLOCK;
    let range = match random.below(10) {
        0..=2 => {
            // Damage to the head of a block shows more than damage to its middle.
            let within = if random.below(2) == 0 { random.below(64) } else { random.below(BLOCK) };
            disk.flip_bit(&path, start + within, random.below(8) as u32);
            start + within..start + within + 1
        }
        3 => {
            disk.zero_block(&path, target);
            whole
        }
        4 | 5 => {
            disk.copy_block(&path, block(random), target);
            whole
        }
        6 => {
            let other = disk.read_file(&files[random.below(files.len() as u64) as usize]);
            let from = random.below((other.len() as u64 / BLOCK).max(1)) * BLOCK;
            let end = (from + BLOCK).min(other.len() as u64);
            disk.write_bytes(&path, start, &other[from as usize..end as usize]);
            whole
        }
        7 => {
            let sector = start + 512 * random.below(8);
            let noise: Vec<_> = (0..512).map(|_| random.below(256) as u8).collect();
            disk.write_bytes(&path, sector, &noise);
            sector..sector + 512
        }
        8 => {
            let len = random.below(bytes.len() as u64);
            let len = if random.below(2) == 0 { len } else { len / BLOCK * BLOCK };
            disk.truncate(&path, len);
            len..bytes.len() as u64
        }
        _ => {
            let sector = start + 512 * random.below(8);
            disk.write_bytes(&path, sector, &[0; 512]);
            sector..sector + 512
        }
    };
    (disk.read_file(&path) != bytes).then_some((path, range))
}
