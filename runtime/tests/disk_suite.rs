//! What a disk promises, checked on every backend: one list of cases, run by each of them.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use ouzel_runtime::disk::{BackendChoice, DirEntry, DiskBackend, OpenMode};
use ouzel_runtime::{Disk, File, Runtime, cores, sim, spawn, yield_now};

type Case = fn(Runtime, PathBuf) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        &[$((stringify!($name), |runtime, dir| Box::pin($name(runtime, dir)))),+]
    };
}

/// Each case gets an empty directory of its own.
const CASES: &[(&str, Case)] = cases![
    reads_back_what_was_written,
    a_read_is_short_only_at_the_end,
    a_gap_reads_as_zeros,
    writes_many_buffers_in_order,
    writes_more_buffers_than_one_call_takes,
    large_writes_and_reads,
    many_operations_at_once,
    open_modes,
    a_file_opened_for_reading_takes_no_writes,
    truncate_cuts_and_extends,
    allocate_keeps_the_length,
    flushes_succeed,
    a_removed_file_stays_readable,
    clones_and_shares_are_the_same_file,
    write_atomic_replaces_and_leaves_no_temporary_file,
    names_and_directories,
    rename_replaces,
    errors_have_their_kinds,
    lock_is_exclusive_until_dropped,
    dropped_operations_harm_nobody,
    tells_free_space,
];

fn run_all(mut run: impl FnMut(Case, &Path)) {
    for (name, case) in CASES {
        eprintln!("case {name}");
        run(*case, Path::new(name));
    }
}

fn run_real(choice: BackendChoice, expected: DiskBackend) {
    let root = tempfile::tempdir().unwrap();
    run_all(|case, name| {
        let dir = root.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        cores::run_one(choice, &[root.path().to_owned()], |runtime| async move {
            assert_eq!(runtime.disk.backend(), expected);
            case(runtime, dir).await;
        })
        .unwrap();
    });
}

#[test]
fn blocking_backend() {
    run_real(BackendChoice::Blocking, DiskBackend::Blocking);
}

/// Where io_uring is missing or forbidden there is nothing to check: `auto` falls back, and says so.
#[test]
fn uring_backend() {
    let tried = cores::run_one(BackendChoice::Uring, &[], |_| async {});
    match tried {
        Ok(()) => run_real(BackendChoice::Uring, DiskBackend::Uring),
        Err(error) => {
            eprintln!("skipped: {error}");
            run_real(BackendChoice::Auto, DiskBackend::Blocking);
        }
    }
}

#[test]
fn simulated_backend() {
    run_all(|case, _| {
        sim::run(1, |node| async move {
            assert_eq!(node.runtime().disk.backend(), DiskBackend::Simulated);
            case(node.runtime(), node.data_dir().to_owned()).await;
        });
    });
}

#[test]
fn simulated_backend_with_delays() {
    for seed in 0..5 {
        run_all(|case, _| {
            sim::run(seed, |node| async move {
                node.disk().set_delay_max(Duration::from_millis(5));
                case(node.runtime(), node.data_dir().to_owned()).await;
            });
        });
    }
}

/// Recognisable bytes: each depends on its place.
fn pattern(from: u64, len: usize) -> Bytes {
    (from..from + len as u64).map(|at| (at % 251) as u8).collect()
}

async fn new_file(disk: &Disk, dir: &Path) -> File {
    disk.open(&dir.join("file"), OpenMode::CreateNew).await.unwrap()
}

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

async fn reads_back_what_was_written(runtime: Runtime, dir: PathBuf) {
    let file = new_file(&runtime.disk, &dir).await;
    assert!(file.is_empty().await.unwrap());
    file.write_at(0, vec![pattern(0, 1000)]).await.unwrap();
    file.write_at(1000, vec![pattern(1000, 1000)]).await.unwrap();
    file.write_at(500, vec![Bytes::from_static(b"over")]).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 2000);
    assert_eq!(file.read_at(0, 500).await.unwrap(), pattern(0, 500));
    assert_eq!(file.read_at(500, 4).await.unwrap(), "over");
    assert_eq!(file.read_at(504, 1496).await.unwrap(), pattern(504, 1496));
}

async fn a_read_is_short_only_at_the_end(runtime: Runtime, dir: PathBuf) {
    let file = new_file(&runtime.disk, &dir).await;
    file.write_at(0, vec![pattern(0, 10)]).await.unwrap();
    for (offset, len, expected) in
        [(0, 10, 10), (0, 11, 10), (9, 100, 1), (10, 1, 0), (4096, 7, 0), (3, 0, 0)]
    {
        assert_eq!(file.read_at(offset, len).await.unwrap().len(), expected, "{len} bytes at {offset}");
    }
}

async fn a_gap_reads_as_zeros(runtime: Runtime, dir: PathBuf) {
    let file = new_file(&runtime.disk, &dir).await;
    file.write_at(5000, vec![pattern(0, 1)]).await.unwrap();
    assert_eq!(file.read_at(0, 5000).await.unwrap(), vec![0; 5000]);
}

async fn writes_many_buffers_in_order(runtime: Runtime, dir: PathBuf) {
    let file = new_file(&runtime.disk, &dir).await;
    let bufs = vec![pattern(7, 3), Bytes::new(), pattern(10, 600), pattern(610, 1)];
    file.write_at(7, bufs).await.unwrap();
    assert_eq!(file.read_at(7, 1000).await.unwrap(), pattern(7, 604));
    file.write_at(1_000_000, Vec::new()).await.unwrap();
    file.write_at(1_000_000, vec![Bytes::new()]).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 611, "writing nothing does nothing");
}

async fn writes_more_buffers_than_one_call_takes(runtime: Runtime, dir: PathBuf) {
    let file = new_file(&runtime.disk, &dir).await;
    // Once small enough to be written inline, once not.
    for each in [1, 300] {
        let bufs = (0..2500).map(|n| pattern(n * each, each as usize)).collect();
        file.write_at(0, bufs).await.unwrap();
        let all = 2500 * each as usize;
        assert_eq!(file.read_at(0, all).await.unwrap(), pattern(0, all));
    }
}

async fn large_writes_and_reads(runtime: Runtime, dir: PathBuf) {
    let file = new_file(&runtime.disk, &dir).await;
    const LEN: usize = 3 << 20;
    let all = pattern(0, LEN);
    file.write_at(0, vec![all.slice(..LEN / 2), all.slice(LEN / 2..)]).await.unwrap();
    assert!(file.read_at(0, LEN + 1).await.unwrap() == all);
}

async fn many_operations_at_once(runtime: Runtime, dir: PathBuf) {
    let file = new_file(&runtime.disk, &dir).await;
    const PART: usize = 300;
    let writers: Vec<_> = (0..600u64)
        .map(|n| {
            let file = file.clone();
            spawn(async move { file.write_at(n * 300, vec![pattern(n * 300, PART)]).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    let readers: Vec<_> = (0..600u64)
        .map(|n| {
            let file = file.clone();
            spawn(async move {
                let read = file.read_at(n * 300, PART).await.unwrap();
                if n % 50 == 0 {
                    file.sync_data().await.unwrap();
                }
                read == pattern(n * 300, PART)
            })
        })
        .collect();
    for reader in readers {
        assert!(reader.await.unwrap());
    }
}

async fn open_modes(runtime: Runtime, dir: PathBuf) {
    let (disk, path) = (&runtime.disk, dir.join("file"));
    assert_eq!(kind(disk.open(&path, OpenMode::Read).await), ErrorKind::NotFound);
    assert_eq!(kind(disk.open(&path, OpenMode::ReadWrite).await), ErrorKind::NotFound);
    let first = disk.open(&path, OpenMode::CreateOrOpen).await.unwrap();
    assert_eq!(first.path(), path);
    first.write_at(0, vec![pattern(0, 9)]).await.unwrap();
    assert_eq!(kind(disk.open(&path, OpenMode::CreateNew).await), ErrorKind::AlreadyExists);
    for mode in [OpenMode::Read, OpenMode::ReadWrite, OpenMode::CreateOrOpen] {
        assert_eq!(disk.open(&path, mode).await.unwrap().len().await.unwrap(), 9, "{mode:?}");
    }
}

async fn a_file_opened_for_reading_takes_no_writes(runtime: Runtime, dir: PathBuf) {
    let file = new_file(&runtime.disk, &dir).await;
    file.write_at(0, vec![pattern(0, 9)]).await.unwrap();
    let reader = runtime.disk.open(file.path(), OpenMode::Read).await.unwrap();
    for len in [1, 400 << 10] {
        assert!(reader.write_at(0, vec![pattern(1, len)]).await.is_err());
    }
    assert!(reader.truncate(0).await.is_err());
    assert_eq!(reader.read_at(0, 100).await.unwrap(), pattern(0, 9));
}

async fn truncate_cuts_and_extends(runtime: Runtime, dir: PathBuf) {
    let file = new_file(&runtime.disk, &dir).await;
    file.write_at(0, vec![pattern(0, 100)]).await.unwrap();
    file.truncate(40).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 40);
    file.truncate(60).await.unwrap();
    let content = file.read_at(0, 100).await.unwrap();
    assert_eq!((content.slice(..40), content.slice(40..)), (pattern(0, 40), Bytes::from(vec![0; 20])));
}

async fn allocate_keeps_the_length(runtime: Runtime, dir: PathBuf) {
    let file = new_file(&runtime.disk, &dir).await;
    file.write_at(0, vec![pattern(0, 100)]).await.unwrap();
    if let Err(error) = file.allocate(100, 1 << 20).await {
        // Some file systems cannot; they must say so, and leave the file alone.
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    assert_eq!(file.read_at(0, 200).await.unwrap(), pattern(0, 100));
}

async fn flushes_succeed(runtime: Runtime, dir: PathBuf) {
    let file = new_file(&runtime.disk, &dir).await;
    file.write_at(0, vec![pattern(0, 100)]).await.unwrap();
    file.sync_data().await.unwrap();
    file.sync_all().await.unwrap();
    runtime.disk.sync_dir(&dir).await.unwrap();
}

async fn a_removed_file_stays_readable(runtime: Runtime, dir: PathBuf) {
    let file = new_file(&runtime.disk, &dir).await;
    file.write_at(0, vec![pattern(0, 100)]).await.unwrap();
    runtime.disk.remove_file(file.path()).await.unwrap();
    assert!(!runtime.disk.exists(file.path()).await.unwrap());
    assert_eq!(file.read_at(0, 100).await.unwrap(), pattern(0, 100));
}

async fn clones_and_shares_are_the_same_file(runtime: Runtime, dir: PathBuf) {
    let file = new_file(&runtime.disk, &dir).await;
    let shared = file.share();
    file.clone().write_at(0, vec![pattern(0, 50)]).await.unwrap();
    drop(file);
    let attached = runtime.disk.attach(&shared);
    drop(shared);
    assert_eq!(attached.path(), dir.join("file"));
    assert_eq!(attached.read_at(0, 50).await.unwrap(), pattern(0, 50));
}

async fn write_atomic_replaces_and_leaves_no_temporary_file(runtime: Runtime, dir: PathBuf) {
    let (disk, path) = (&runtime.disk, dir.join("small"));
    for content in ["a long first content", "short", ""] {
        disk.write_atomic(&path, Bytes::from_static(content.as_bytes())).await.unwrap();
        assert_eq!(disk.read(&path).await.unwrap(), content);
    }
    assert_eq!(disk.list_dir(&dir).await.unwrap().len(), 1);
}

async fn names_and_directories(runtime: Runtime, dir: PathBuf) {
    let disk = &runtime.disk;
    let deep = dir.join("b/c/d");
    disk.create_dir_all(&deep).await.unwrap();
    disk.create_dir_all(&deep).await.unwrap();
    for (name, len) in [("z", 3), ("a", 5)] {
        let file = disk.open(&dir.join(name), OpenMode::CreateNew).await.unwrap();
        file.write_at(0, vec![pattern(0, len)]).await.unwrap();
    }
    let entry = |name: &str, bytes| DirEntry { name: name.into(), is_dir: false, bytes };
    let mut listed = disk.list_dir(&dir).await.unwrap();
    let sub = listed.remove(1);
    assert_eq!((sub.name.as_str(), sub.is_dir), ("b", true));
    assert_eq!(listed, [entry("a", 5), entry("z", 3)]);
    assert!(disk.exists(&deep).await.unwrap());
    disk.open(&deep.join("leaf"), OpenMode::CreateNew).await.unwrap();
    disk.remove_dir_all(&dir.join("b")).await.unwrap();
    assert!(!disk.exists(&deep).await.unwrap());
    disk.sync_dir(&dir).await.unwrap();
}

async fn rename_replaces(runtime: Runtime, dir: PathBuf) {
    let disk = &runtime.disk;
    let (one, two, sub) = (dir.join("one"), dir.join("two"), dir.join("sub"));
    disk.create_dir_all(&sub).await.unwrap();
    for (path, content) in [(&one, "1"), (&two, "2")] {
        disk.write_atomic(path, Bytes::from_static(content.as_bytes())).await.unwrap();
    }
    disk.rename(&one, &two).await.unwrap();
    assert_eq!((disk.read(&two).await.unwrap(), disk.exists(&one).await.unwrap()), ("1".into(), false));
    disk.rename(&two, &sub.join("two")).await.unwrap();
    disk.rename(&sub, &dir.join("moved")).await.unwrap();
    assert_eq!(disk.read(&dir.join("moved/two")).await.unwrap(), "1");
}

async fn errors_have_their_kinds(runtime: Runtime, dir: PathBuf) {
    let (disk, missing) = (&runtime.disk, dir.join("missing"));
    assert_eq!(kind(disk.read(&missing).await), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove_file(&missing).await), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove_dir_all(&missing).await), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename(&missing, &dir.join("other")).await), ErrorKind::NotFound);
    assert_eq!(kind(disk.list_dir(&missing).await), ErrorKind::NotFound);
    assert_eq!(kind(disk.sync_dir(&missing).await), ErrorKind::NotFound);
    assert_eq!(kind(disk.open(&missing.join("x"), OpenMode::CreateNew).await), ErrorKind::NotFound);
    let file = new_file(disk, &dir).await;
    assert_eq!(kind(disk.list_dir(file.path()).await), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.create_dir_all(file.path()).await), ErrorKind::AlreadyExists);
    assert!(file.write_at(u64::MAX - 1, vec![pattern(0, 10)]).await.is_err());
    assert!(file.is_empty().await.unwrap());
}

async fn lock_is_exclusive_until_dropped(runtime: Runtime, dir: PathBuf) {
    let path = dir.join("lock");
    let guard = runtime.disk.lock_exclusive(&path).await.unwrap();
    assert_eq!(kind(runtime.disk.lock_exclusive(&path).await), ErrorKind::WouldBlock);
    drop(guard);
    runtime.disk.lock_exclusive(&path).await.unwrap();
}

/// Polls an operation once and drops it, over and over, while others on the same file go on: what the kernel
/// still works on must stay alive, and nobody may get another's answer.
async fn dropped_operations_harm_nobody(runtime: Runtime, dir: PathBuf) {
    let file = new_file(&runtime.disk, &dir).await;
    const LEN: usize = 400 << 10;
    file.write_at(0, vec![pattern(0, LEN)]).await.unwrap();
    for round in 0..50usize {
        let read = file.read_at(0, LEN);
        let write = file.write_at(0, vec![pattern(0, LEN)]);
        let sync = file.sync_data();
        for dropped in [
            Box::pin(async { drop(read.await) }) as Pin<Box<dyn Future<Output = ()>>>,
            Box::pin(async { drop(write.await) }),
            Box::pin(async { drop(sync.await) }),
        ] {
            tokio::select! {
                biased;
                () = dropped => {}
                () = std::future::ready(()) => {}
            }
        }
        if round % 3 == 0 {
            yield_now().await;
        }
        let from = (round * 1000) as u64;
        assert!(file.read_at(from, 5000).await.unwrap() == pattern(from, 5000), "round {round}");
    }
    file.sync_data().await.unwrap();
    assert!(file.read_at(0, LEN).await.unwrap() == pattern(0, LEN));
}

async fn tells_free_space(runtime: Runtime, dir: PathBuf) {
    assert!(runtime.disk.free_bytes(&dir).await.unwrap() > 0);
}
