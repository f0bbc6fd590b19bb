//! What a simulated disk holds: what programs see, what is durable, and what lies between.
//!
//! Every file and directory has a live side, which programs see, and a durable side, which a power cut leaves. What
//! changed since the last flush waits in `pending`, in order. A flush moves one file's, or one directory's, pending
//! changes to its durable side: a file's bytes do not make its name durable, nor the other way round.
//!
//! A power cut chooses, by chance, among the images that a real machine could show:
//!
//! * per directory, a prefix of its pending changes holds (file systems keep their metadata in order); a rename
//!   between two directories never loses the file, but may leave it under both names;
//! * per file, one of: all pending changes; none; a prefix of them, the last one cut at any byte; any subset of
//!   their 512-byte sectors, with the new length or without it (a lost sector then reads as zeros).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use bytes::Bytes;

use super::Rng;
use crate::disk::DirEntry;

/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: u64 = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(u64);

const ROOT: NodeId = NodeId(0);

#[derive(Clone)]
pub(crate) struct Image {
    nodes: BTreeMap<NodeId, Node>,
    next_id: u64,
}

#[derive(Clone)]
enum Node {
    Dir(Dir),
    File(File),
}

#[derive(Clone, Default)]
struct Dir {
    live: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
    pending: Vec<DirChange>,
}

/// One atomic change of one directory.
#[derive(Clone)]
struct DirChange {
    removes: Option<String>,
    adds: Option<(String, NodeId)>,
    /// Ties the two halves of a rename between directories together.
    rename: Option<u64>,
}

#[derive(Clone, Default)]
struct File {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Space is reserved up to here, beyond the length.
    reserved_end: u64,
}

#[derive(Clone)]
enum Change {
    Write { offset: u64, bytes: Bytes },
    SetLen(u64),
}

impl Image {
    /// An empty root and one durable, empty directory.
    pub(crate) fn with_dir(dir: &str) -> Self {
        let mut image = Self { nodes: BTreeMap::from([(ROOT, Node::Dir(Dir::default()))]), next_id: 1 };
        // Nothing stands in the way of the first directory.
        let made = image.create_dir_all(Path::new(dir)).and_then(|()| image.sync_dir(Path::new("/")));
        debug_assert!(made.is_ok());
        image
    }

    // ---- names

    pub(crate) fn file(&self, path: &Path) -> io::Result<NodeId> {
        let id = self.lookup(path)?;
        match &self.nodes[&id] {
            Node::File(_) => Ok(id),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.lookup(path).is_ok()
    }

    pub(crate) fn create_file(&mut self, path: &Path) -> io::Result<NodeId> {
        let (dir, name) = self.place(path)?;
        if self.dir(dir)?.live.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.add_node(Node::File(File::default()));
        self.change_dir(dir, DirChange { removes: None, adds: Some((name, id)), rename: None });
        Ok(id)
    }

    pub(crate) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut dir = ROOT;
        for name in names(path)? {
            dir = match self.dir(dir)?.live.get(&name) {
                Some(next) => *next,
                None => {
                    let id = self.add_node(Node::Dir(Dir::default()));
                    self.change_dir(dir, DirChange { removes: None, adds: Some((name, id)), rename: None });
                    id
                }
            };
        }
        self.dir(dir).map(|_| ()).map_err(|_| io::ErrorKind::AlreadyExists.into())
    }

    pub(crate) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        let (dir, name) = self.place(path)?;
        self.change_dir(dir, DirChange { removes: Some(name), adds: None, rename: None });
        Ok(())
    }

    pub(crate) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let id = self.lookup(path)?;
        let inside: Vec<(String, bool)> = {
            let live = &self.dir(id)?.live;
            live.iter().map(|(name, id)| (name.clone(), matches!(self.nodes[id], Node::Dir(_)))).collect()
        };
        for (name, is_dir) in inside {
            let path = path.join(name);
            if is_dir {
                self.remove_dir_all(&path)?;
            } else {
                self.remove_file(&path)?;
            }
        }
        let (dir, name) = self.place(path)?;
        self.change_dir(dir, DirChange { removes: Some(name), adds: None, rename: None });
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.lookup(from)?;
        let ((from_dir, from_name), (to_dir, to_name)) = (self.place(from)?, self.place(to)?);
        if let Some(replaced) = self.dir(to_dir)?.live.get(&to_name) {
            if *replaced == id {
                return Ok(());
            }
            match (&self.nodes[&id], &self.nodes[replaced]) {
                (Node::File(_), Node::File(_)) => {}
                (Node::Dir(_), Node::Dir(dir)) if dir.live.is_empty() => {}
                (Node::Dir(_), Node::Dir(_)) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
                (Node::File(_), Node::Dir(_)) => return Err(io::ErrorKind::IsADirectory.into()),
                (Node::Dir(_), Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            }
        }
        let (removes, adds) = (Some(from_name), Some((to_name, id)));
        if from_dir == to_dir {
            self.change_dir(from_dir, DirChange { removes, adds, rename: None });
        } else {
            let rename = Some(self.next_id());
            self.change_dir(to_dir, DirChange { removes: None, adds, rename });
            self.change_dir(from_dir, DirChange { removes, adds: None, rename });
        }
        Ok(())
    }

    pub(crate) fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let entries = self.dir(self.lookup(path)?)?.live.iter();
        Ok(entries
            .map(|(name, id)| {
                let (is_dir, bytes) = match &self.nodes[id] {
                    Node::Dir(_) => (true, 0),
                    Node::File(file) => (false, file.live.len() as u64),
                };
                DirEntry { name: name.clone(), is_dir, bytes }
            })
            .collect())
    }

    pub(crate) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.lookup(path)?;
        let dir = self.dir_mut(id)?;
        let pending = std::mem::take(&mut dir.pending);
        for change in &pending {
            change.apply(&mut dir.durable);
        }
        // Where a file was moved out of this directory, a flush of the source alone must not lose it.
        let moved_out: BTreeSet<u64> = pending
            .iter()
            .filter(|change| change.removes.is_some())
            .filter_map(|change| change.rename)
            .collect();
        let ends = self
            .dirs()
            .filter_map(|(id, dir)| {
                let is_one =
                    |change: &DirChange| change.rename.is_some_and(|rename| moved_out.contains(&rename));
                dir.pending.iter().rposition(is_one).map(|last| (id, last + 1))
            })
            .collect();
        self.keep_prefixes(ends);
        Ok(())
    }

    fn lookup(&self, path: &Path) -> io::Result<NodeId> {
        let mut id = ROOT;
        for name in names(path)? {
            id = *self.dir(id)?.live.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(id)
    }

    /// The directory a path lies in, and its name there.
    fn place(&self, path: &Path) -> io::Result<(NodeId, String)> {
        let mut names = names(path)?;
        let name = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let mut dir = ROOT;
        for name in names {
            dir = *self.dir(dir)?.live.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        self.dir(dir)?;
        Ok((dir, name))
    }

    fn dir(&self, id: NodeId) -> io::Result<&Dir> {
        match &self.nodes[&id] {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Whether a file has a name that ends so.
    pub(crate) fn has_extension(&self, id: NodeId, extension: &str) -> bool {
        let has = |name: &str| Path::new(name).extension().is_some_and(|found| found == extension);
        self.dirs().any(|(_, dir)| dir.live.iter().any(|(name, node)| *node == id && has(name)))
    }

    fn dir_mut(&mut self, id: NodeId) -> io::Result<&mut Dir> {
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn dirs(&self) -> impl Iterator<Item = (NodeId, &Dir)> {
        self.nodes.iter().filter_map(|(id, node)| match node {
            Node::Dir(dir) => Some((*id, dir)),
            Node::File(_) => None,
        })
    }

    fn change_dir(&mut self, id: NodeId, change: DirChange) {
        if let Some(Node::Dir(dir)) = self.nodes.get_mut(&id) {
            change.apply(&mut dir.live);
            dir.pending.push(change);
        }
    }

    fn add_node(&mut self, node: Node) -> NodeId {
        let id = NodeId(self.next_id());
        self.nodes.insert(id, node);
        id
    }

    fn next_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    // ---- bytes

    /// A file that was open when it was unlinked stays until the next power cut or kill.
    fn open_file(&self, id: NodeId) -> io::Result<&File> {
        match self.nodes.get(&id) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn open_file_mut(&mut self, id: NodeId) -> io::Result<&mut File> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(crate) fn len(&self, id: NodeId) -> io::Result<u64> {
        Ok(self.open_file(id)?.live.len() as u64)
    }

    pub(crate) fn read(&self, id: NodeId, offset: u64, len: usize) -> io::Result<Bytes> {
        let live = &self.open_file(id)?.live;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(live.len());
        Ok(Bytes::copy_from_slice(&live[from..live.len().min(from.saturating_add(len))]))
    }

    pub(crate) fn write(&mut self, id: NodeId, offset: u64, bytes: Bytes) -> io::Result<()> {
        self.open_file_mut(id)?.change(Change::Write { offset, bytes });
        Ok(())
    }

    pub(crate) fn set_len(&mut self, id: NodeId, len: u64) -> io::Result<()> {
        let file = self.open_file_mut(id)?;
        file.change(Change::SetLen(len));
        file.reserved_end = file.reserved_end.min(len);
        Ok(())
    }

    pub(crate) fn reserve(&mut self, id: NodeId, end: u64) -> io::Result<()> {
        let file = self.open_file_mut(id)?;
        file.reserved_end = file.reserved_end.max(end);
        Ok(())
    }

    pub(crate) fn sync_file(&mut self, id: NodeId) -> io::Result<()> {
        let file = self.open_file_mut(id)?;
        for change in std::mem::take(&mut file.pending) {
            change.apply(&mut file.durable);
        }
        Ok(())
    }

    /// What a failed flush leaves: some of the bytes made it, and the kernel forgets that the others did not. They
    /// are still there to read, and the next flush, which succeeds, does not write them.
    pub(crate) fn fail_sync(&mut self, id: NodeId, rng: &mut Rng) -> io::Result<()> {
        let file = self.open_file_mut(id)?;
        file.durable = file.after_power_cut(rng);
        file.pending.clear();
        Ok(())
    }

    /// Flips a bit on the medium and in what programs see.
    pub(crate) fn flip_bit(&mut self, id: NodeId, offset: u64, bit: u8) -> io::Result<()> {
        let file = self.open_file_mut(id)?;
        let index = usize::try_from(offset).map_err(io::Error::other)?;
        if index >= file.live.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for side in [&mut file.live, &mut file.durable] {
            if let Some(byte) = side.get_mut(index) {
                *byte ^= 1 << (bit % 8);
            }
        }
        Ok(())
    }

    /// Bytes taken by files that have a name, lengths and reservations.
    pub(crate) fn used_bytes(&self) -> u64 {
        let mut used = 0;
        for (_, dir) in self.dirs() {
            for id in dir.live.values() {
                if let Node::File(file) = &self.nodes[id] {
                    used += file.used_bytes();
                }
            }
        }
        used
    }

    /// How many bytes more a file would take if it grew to `end`.
    pub(crate) fn growth(&self, id: NodeId, end: u64) -> io::Result<u64> {
        Ok(end.saturating_sub(self.open_file(id)?.used_bytes()))
    }

    // ---- the end of a process, and of a machine

    /// What a killed process leaves: all it has written, flushed or not. Unlinked files are gone.
    pub(crate) fn after_kill(mut self) -> Self {
        self.sweep();
        self
    }

    /// What a power cut leaves: one of the legal images, by chance.
    pub(crate) fn after_power_cut(mut self, rng: &mut Rng) -> Self {
        let ends = self.dirs().map(|(id, dir)| (id, some_prefix(dir.pending.len(), rng))).collect();
        self.keep_prefixes(ends);
        for node in self.nodes.values_mut() {
            match node {
                Node::Dir(dir) => {
                    dir.pending.clear();
                    dir.live = dir.durable.clone();
                }
                Node::File(file) => {
                    file.durable = file.after_power_cut(rng);
                    file.pending.clear();
                    file.live = file.durable.clone();
                    file.reserved_end = file.live.len() as u64;
                }
            }
        }
        self.sweep();
        self
    }

    /// Moves to the durable side, of each directory named, its first changes up to the end given. Where a rename's
    /// removal is among them, its addition joins in, with all before it.
    fn keep_prefixes(&mut self, mut ends: BTreeMap<NodeId, usize>) {
        let mut grew = true;
        // Ends: each round lengthens a prefix, and all of them together are finite.
        while grew {
            grew = false;
            let removed: BTreeSet<u64> = self
                .dirs()
                .flat_map(|(id, dir)| &dir.pending[..ends.get(&id).copied().unwrap_or(0)])
                .filter(|change| change.removes.is_some())
                .filter_map(|change| change.rename)
                .collect();
            for (id, dir) in self.dirs() {
                let needed = dir.pending.iter().rposition(|change| {
                    change.adds.is_some() && change.rename.is_some_and(|rename| removed.contains(&rename))
                });
                let end = ends.entry(id).or_insert(0);
                if needed.is_some_and(|last| last >= *end) {
                    *end = needed.map_or(0, |last| last + 1);
                    grew = true;
                }
            }
        }
        for (id, end) in ends {
            if let Ok(dir) = self.dir_mut(id) {
                for change in dir.pending.drain(..end) {
                    change.apply(&mut dir.durable);
                }
            }
        }
    }

    /// Forgets what no name leads to, live or durable.
    fn sweep(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut next = vec![ROOT];
        while let Some(id) = next.pop() {
            if let Some(Node::Dir(dir)) = self.nodes.get(&id) {
                let pending = dir.pending.iter().filter_map(|change| change.adds.as_ref().map(|(_, id)| id));
                for id in dir.live.values().chain(dir.durable.values()).chain(pending) {
                    if reached.insert(*id) {
                        next.push(*id);
                    }
                }
            }
        }
        self.nodes.retain(|id, _| reached.contains(id));
    }
}

impl DirChange {
    fn apply(&self, names: &mut BTreeMap<String, NodeId>) {
        if let Some(name) = &self.removes {
            names.remove(name);
        }
        if let Some((name, id)) = &self.adds {
            names.insert(name.clone(), *id);
        }
    }
}

impl File {
    fn used_bytes(&self) -> u64 {
        (self.live.len() as u64).max(self.reserved_end)
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    fn after_power_cut(&self, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        match rng.below(4) {
            0 => {}
            1 => self.pending.iter().for_each(|change| change.apply(&mut bytes)),
            2 => {
                let whole = usize::try_from(rng.below(self.pending.len() as u64 + 1)).unwrap_or_default();
                self.pending[..whole].iter().for_each(|change| change.apply(&mut bytes));
                if let Some(Change::Write { offset, bytes: torn }) = self.pending.get(whole) {
                    let kept = usize::try_from(rng.below(torn.len() as u64 + 1)).unwrap_or_default();
                    if kept > 0 {
                        Change::Write { offset: *offset, bytes: torn.slice(..kept) }.apply(&mut bytes);
                    }
                }
            }
            _ => {
                let kept_of_4 = 1 + rng.below(3);
                for change in &self.pending {
                    for part in change.sectors() {
                        if rng.chance(kept_of_4, 4) {
                            part.apply(&mut bytes);
                        }
                    }
                }
                if bytes.len() < self.live.len() && rng.chance(1, 2) {
                    bytes.resize(self.live.len(), 0);
                }
            }
        }
        bytes
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let from = usize::try_from(*offset).unwrap_or(usize::MAX);
                let end = from + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[from..end].copy_from_slice(bytes);
            }
            Self::SetLen(len) => content.resize(usize::try_from(*len).unwrap_or(usize::MAX), 0),
        }
    }

    /// The parts of a change that reach the medium on their own.
    fn sectors(&self) -> Vec<Self> {
        let Self::Write { offset, bytes } = self else { return vec![self.clone()] };
        let mut parts = Vec::new();
        let (mut offset, mut rest) = (*offset, bytes.clone());
        while !rest.is_empty() {
            let to_boundary = usize::try_from(SECTOR_BYTES - offset % SECTOR_BYTES).unwrap_or(usize::MAX);
            let part = rest.split_to(to_boundary.min(rest.len()));
            let next = offset + part.len() as u64;
            parts.push(Self::Write { offset, bytes: part });
            offset = next;
        }
        parts
    }
}

/// All of `len`, none, or some, each as likely.
fn some_prefix(len: usize, rng: &mut Rng) -> usize {
    match rng.below(3) {
        0 => 0,
        1 => len,
        _ => usize::try_from(rng.below(len as u64 + 1)).unwrap_or(len),
    }
}

/// The names along a path from the root; relative paths start there too.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                names.push(name.to_str().ok_or(io::ErrorKind::InvalidInput)?.to_owned());
            }
            Component::ParentDir | Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(names)
}
