//! Random changes to the files of a store.

use super::*;

/// One of the changes that people and scripts make to the files of a store.
fn damage(files: &mut Files, life: &Life, other: &Life, random: &mut Random) {
    let names: Vec<_> = files.keys().cloned().collect();
    if names.is_empty() {
        return;
    }
    let target = names[random.below(names.len() as u64) as usize].clone();
    let moment = &life.moments[random.below(life.moments.len() as u64) as usize];
    match random.below(8) {
        0 => drop(files.remove(&target)),
        1 | 2 => {
            if let Some(earlier) = moment.get(&target) {
                files.insert(target, earlier.clone());
            }
        }
        3 => {
            let names: Vec<_> = other.present().keys().collect();
            let foreign = names[random.below(names.len() as u64) as usize].clone();
            files.insert(foreign.clone(), other.present()[&foreign].clone());
        }
        4 => {
            let bytes = files.get_mut(&target).unwrap();
            if !bytes.is_empty() {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
            }
        }
        5 => {
            let bytes = files.get_mut(&target).unwrap();
            bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
        }
        6 => {
            // A file that was there once comes back.
            for (path, bytes) in moment {
                files.entry(path.clone()).or_insert_with(|| bytes.clone());
            }
        }
        _ => {
            let bytes = files[&target].clone();
            let to = names[random.below(names.len() as u64) as usize].clone();
            files.insert(to, bytes);
        }
    }
}

/// An open does not refuse rotten records, or a journal that lost its end. Those are the subject of
/// `rot`; this test judges refused opens alone.
#[test]
fn whatever_is_refused_is_untouched_and_opens_once_the_damage_is_undone() {
    let mut refused = 0;
    let mut lives: Option<(u64, Life, Life)> = None;
    for seed in seeds(0..120) {
        let _seed = Seed(seed);
        let batch = seed / 40;
        if lives.as_ref().is_none_or(|(of, ..)| *of != batch) {
            lives = Some((batch, Life::new(5, 2 * batch), Life::new(3, 2 * batch + 1)));
        }
        let (_, life, other) = lives.as_ref().unwrap();
        let mut random = Random::new(seed);
        let damaged = life.damaged(|files| {
            for _ in 0..1 + random.below(2) {
                damage(files, life, other, &mut random);
            }
        });
        let before = files(&damaged.sim.disk);
        let Err(error) = damaged.sim.options().open("/store") else { continue };
        assert!(DAMAGE.contains(&error.kind()), "{error:?}");
        assert!(files(&damaged.sim.disk) == before, "a refused open changed files: {error}");
        put(&damaged.sim.disk, life.present());
        damaged.check(&damaged.sim.options().open_existing("/store").unwrap());
        refused += 1;
    }
    eprintln!("{refused} refused");
    assert!(refused > 0);
}
