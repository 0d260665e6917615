//! The directory tree: the names that the process sees, the durable names, and the changes between
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::crash::Fate;
use super::file::File;
use super::names::{error, names};

pub(super) type NodeId = u64;
type Names = BTreeMap<String, NodeId>;

const ROOT: NodeId = 0;

#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    next: NodeId,
    /// Changes of directories that no sync has made durable, in order.
    unsynced: Vec<EntryChange>,
    /// How many changes of directories were made.
    changes: u64,
}

#[derive(Clone, Debug)]
enum Node {
    Dir { seen: Names, durable: Names },
    File(File),
}

/// A change of directory entries that happens as a whole or not at all. A change follows every
/// earlier unsynced change of the same entry, as on every filesystem: a renamed file is not lost
/// when its old name goes to another file.
#[derive(Clone, Debug)]
struct EntryChange {
    entries: Vec<(Entry, Option<NodeId>)>,
    /// The directories whose sync makes this change durable.
    unsynced: BTreeSet<NodeId>,
}

type Entry = (NodeId, String);

impl Tree {
    pub(super) fn new() -> Self {
        let root = Node::Dir { seen: Names::new(), durable: Names::new() };
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            unsynced: Vec::new(),
            changes: 0,
        }
    }

    pub(super) fn create_dirs(&mut self, path: &Path) -> io::Result<()> {
        let mut dir = ROOT;
        for name in names(path)? {
            dir = match self.names(dir, path)?.get(&name) {
                Some(node) => *node,
                None => {
                    let node = Node::Dir { seen: Names::new(), durable: Names::new() };
                    self.link_new(dir, name, node)
                }
            };
        }
        self.names(dir, path).map(|_| ())
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<NodeId> {
        let entry = self.entry(path)?;
        if self.names(entry.0, path)?.contains_key(&entry.1) {
            return Err(error(io::ErrorKind::AlreadyExists, path));
        }
        Ok(self.link_new(entry.0, entry.1, Node::File(File::default())))
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let dir = self.lookup(path)?;
        Ok(self.names(dir, path)?.keys().cloned().collect())
    }

    pub(super) fn lookup(&self, path: &Path) -> io::Result<NodeId> {
        names(path)?.iter().try_fold(ROOT, |dir, name| {
            let found = self.names(dir, path)?.get(name).copied();
            found.ok_or_else(|| error(io::ErrorKind::NotFound, path))
        })
    }

    pub(super) fn lookup_file(&self, path: &Path) -> io::Result<NodeId> {
        let node = self.lookup(path)?;
        match &self.nodes[&node] {
            Node::File(_) => Ok(node),
            Node::Dir { .. } => Err(error(io::ErrorKind::IsADirectory, path)),
        }
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.lookup_file(from)?;
        let (from, target) = (self.entry(from)?, self.entry(to)?);
        match self.names(target.0, to)?.get(&target.1) {
            Some(same) if *same == node => return Ok(()),
            Some(_) => {
                self.lookup_file(to)?;
            }
            None => {}
        }
        self.change(vec![(from, None), (target, Some(node))]);
        Ok(())
    }

    /// Renames a directory. `to` must be absent or an empty directory.
    pub(super) fn rename_dir(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.lookup(from)?;
        self.names(node, from)?;
        let (from, target) = (self.entry(from)?, self.entry(to)?);
        if self.names(target.0, to)?.contains_key(&target.1) && !self.list(to)?.is_empty() {
            return Err(error(io::ErrorKind::DirectoryNotEmpty, to));
        }
        self.change(vec![(from, None), (target, Some(node))]);
        Ok(())
    }

    /// The present path of a directory. `None` when it was removed.
    pub(super) fn path_of(&self, directory: NodeId) -> Option<PathBuf> {
        let mut dirs = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, dir)) = dirs.pop() {
            if dir == directory {
                return Some(path);
            }
            if let Node::Dir { seen, .. } = &self.nodes[&dir] {
                let inside = seen.iter().map(|(name, node)| (path.join(name), *node));
                dirs.extend(
                    inside.filter(|(_, node)| matches!(self.nodes[node], Node::Dir { .. })),
                );
            }
        }
        None
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.lookup_file(path)?;
        let entry = self.entry(path)?;
        self.change(vec![(entry, None)]);
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        if !self.list(path)?.is_empty() {
            return Err(error(io::ErrorKind::DirectoryNotEmpty, path));
        }
        let entry = self.entry(path)?;
        self.change(vec![(entry, None)]);
        Ok(())
    }

    /// Makes the entries of a directory durable. A rename into another directory is durable once
    /// both are synced.
    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.lookup(path)?;
        self.names(dir, path)?;
        self.settle(|change| {
            change.unsynced.remove(&dir);
            change.unsynced.is_empty()
        });
        Ok(())
    }

    /// Makes a file of this name exist, durable like its directories.
    pub(super) fn put_file(&mut self, path: &Path) -> io::Result<()> {
        self.create_dirs(path.parent().unwrap_or(path))?;
        match self.create_file(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.lookup_file(path)?;
            }
            result => {
                result?;
            }
        }
        let entries = path.ancestors().filter_map(|path| self.entry(path).ok()).collect();
        self.settle(|change| change.touches(&entries));
        Ok(())
    }

    pub(super) fn is_dir_synced(&self, path: &Path) -> io::Result<bool> {
        let dir = self.lookup(path)?;
        Ok(self.unsynced.iter().all(|change| !change.unsynced.contains(&dir)))
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether a directory names the file.
    pub(super) fn is_named(&self, node: NodeId) -> bool {
        self.nodes.values().any(|dir| matches!(dir, Node::Dir { seen, .. } if seen.values().any(|named| *named == node)))
    }

    pub(super) fn sync_everything(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            self.make_durable(&change);
        }
        self.all_files_mut().for_each(File::sync);
        self.collect();
    }

    pub(super) fn file(&self, node: NodeId) -> &File {
        match &self.nodes[&node] {
            Node::File(file) => file,
            Node::Dir { .. } => unreachable!("directories are not opened"),
        }
    }

    pub(super) fn file_mut(&mut self, node: NodeId) -> &mut File {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => file,
            _ => unreachable!("an open file is kept and directories are not opened"),
        }
    }

    pub(super) fn all_files_mut(&mut self) -> impl Iterator<Item = &mut File> {
        self.nodes.values_mut().filter_map(|node| match node {
            Node::File(file) => Some(file),
            Node::Dir { .. } => None,
        })
    }

    /// The linked files with their paths, in order.
    pub(super) fn files(&self) -> Vec<(PathBuf, NodeId)> {
        let mut files = Vec::new();
        let mut dirs = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, dir)) = dirs.pop() {
            let Node::Dir { seen, .. } = &self.nodes[&dir] else {
                continue;
            };
            for (name, node) in seen {
                match &self.nodes[node] {
                    Node::Dir { .. } => dirs.push((path.join(name), *node)),
                    Node::File(_) => files.push((path.join(name), *node)),
                }
            }
        }
        files.sort();
        files
    }

    /// The number of pages that linked and open files take.
    pub(super) fn allocated_pages(&self) -> u64 {
        let linked: BTreeSet<_> = self.files().into_iter().map(|(_, node)| node).collect();
        let files = self.nodes.iter().filter_map(|(id, node)| match node {
            Node::File(file) if file.handles > 0 || linked.contains(id) => Some(file),
            _ => None,
        });
        files.map(|file| file.seen.allocated_pages()).sum()
    }

    /// The tree after a power loss, with no file open.
    pub(super) fn after_power_loss(&self, fate: &mut Fate) -> Self {
        let mut image =
            Self { nodes: BTreeMap::new(), next: self.next, unsynced: Vec::new(), changes: 0 };
        for (id, node) in &self.nodes {
            let node = match node {
                Node::File(file) => Node::File(file.after_power_loss(fate)),
                Node::Dir { durable, .. } => {
                    Node::Dir { seen: durable.clone(), durable: durable.clone() }
                }
            };
            image.nodes.insert(*id, node);
        }
        let mut lost = BTreeSet::new();
        for change in &self.unsynced {
            if fate.keeps() && !change.touches(&lost) {
                image.see(change);
                image.make_durable(change);
            } else {
                lost.extend(change.entries.iter().map(|(entry, _)| entry.clone()));
            }
        }
        image.collect();
        image
    }

    /// The same tree, with no file open.
    pub(super) fn after_process_kill(&self) -> Self {
        let mut image = self.clone();
        image.all_files_mut().for_each(|file| file.handles = 0);
        image.collect();
        image
    }

    /// Forgets the files and directories that are out of reach.
    pub(super) fn collect(&mut self) {
        let mut reached = BTreeSet::new();
        let mut next = vec![ROOT];
        next.extend(
            self.unsynced.iter().flat_map(|change| &change.entries).filter_map(|entry| entry.1),
        );
        while let Some(id) = next.pop() {
            if reached.insert(id)
                && let Node::Dir { seen, durable } = &self.nodes[&id]
            {
                next.extend(seen.values().chain(durable.values()));
            }
        }
        self.nodes.retain(|id, node| {
            reached.contains(id) || matches!(node, Node::File(file) if file.handles > 0)
        });
    }

    #[cfg(test)]
    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Makes the `due` changes durable, and all changes that they follow.
    fn settle(&mut self, mut due: impl FnMut(&mut EntryChange) -> bool) {
        let mut followed = BTreeSet::new();
        let mut settled = Vec::new();
        for mut change in std::mem::take(&mut self.unsynced).into_iter().rev() {
            if due(&mut change) || change.touches(&followed) {
                followed.extend(change.entries.iter().map(|(entry, _)| entry.clone()));
                settled.push(change);
            } else {
                self.unsynced.push(change);
            }
        }
        self.unsynced.reverse();
        settled.iter().rev().for_each(|change| self.make_durable(change));
        self.collect();
    }

    fn names(&self, dir: NodeId, path: &Path) -> io::Result<&Names> {
        match &self.nodes[&dir] {
            Node::Dir { seen, .. } => Ok(seen),
            Node::File(_) => Err(error(io::ErrorKind::NotADirectory, path)),
        }
    }

    fn entry(&self, path: &Path) -> io::Result<Entry> {
        let mut names = names(path)?;
        let name = names.pop().ok_or_else(|| error(io::ErrorKind::IsADirectory, path))?;
        Ok((self.lookup(&names.iter().collect::<PathBuf>())?, name))
    }

    fn link_new(&mut self, dir: NodeId, name: String, node: Node) -> NodeId {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, node);
        self.change(vec![((dir, name), Some(id))]);
        id
    }

    fn change(&mut self, entries: Vec<(Entry, Option<NodeId>)>) {
        let unsynced = entries.iter().map(|((dir, _), _)| *dir).collect();
        let change = EntryChange { entries, unsynced };
        self.see(&change);
        self.unsynced.push(change);
    }

    fn see(&mut self, change: &EntryChange) {
        self.changes += 1;
        for ((dir, name), node) in &change.entries {
            if let Some(Node::Dir { seen, .. }) = self.nodes.get_mut(dir) {
                set(seen, name, *node);
            }
        }
    }

    fn make_durable(&mut self, change: &EntryChange) {
        for ((dir, name), node) in &change.entries {
            if let Some(Node::Dir { durable, .. }) = self.nodes.get_mut(dir) {
                set(durable, name, *node);
            }
        }
    }
}

impl EntryChange {
    fn touches(&self, entries: &BTreeSet<Entry>) -> bool {
        self.entries.iter().any(|(entry, _)| entries.contains(entry))
    }
}

fn set(names: &mut Names, name: &str, node: Option<NodeId>) {
    match node {
        Some(node) => names.insert(name.to_owned(), node),
        None => names.remove(name),
    };
}
