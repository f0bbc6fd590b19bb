//! What the simulated machine does to those who trust it too much.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use ouzel_runtime::disk::OpenMode;
use ouzel_runtime::sim::{self, SimDisk, SimRuntime};
use ouzel_runtime::{CoreId, File, Runtime, spawn};

/// Enough crashes to see every kind of image that a crash of these small scenes can leave.
const CRASHES: u32 = 300;

fn path(name: &str) -> PathBuf {
    Path::new(sim::DATA_DIR).join(name)
}

async fn create(runtime: &Runtime, name: &str) -> File {
    runtime.disk.open(&path(name), OpenMode::CreateNew).await.unwrap()
}

/// A file of `flushed`, durable with its name, and then `tail` that is not.
async fn file_with_tail(runtime: &Runtime, flushed: Bytes, tail: Bytes) -> File {
    let file = create(runtime, "file").await;
    let len = flushed.len() as u64;
    file.write_at(0, vec![flushed]).await.unwrap();
    file.sync_data().await.unwrap();
    runtime.disk.sync_dir(Path::new(sim::DATA_DIR)).await.unwrap();
    file.write_at(len, vec![tail]).await.unwrap();
    file
}

fn content(disk: &SimDisk, name: &str) -> Option<Bytes> {
    disk.files().into_iter().find(|(at, _)| *at == path(name)).map(|(_, content)| content)
}

fn letters(from: u8, len: usize) -> Bytes {
    (0..len).map(|at| from + (at % 26) as u8).collect()
}

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn a_power_cut_keeps_what_was_flushed_and_tears_the_tail_anywhere() {
    sim::run(7, |node| async move {
        let (flushed, tail) = (letters(b'a', 1000), letters(b'A', 2000));
        let _file = file_with_tail(&node.runtime(), flushed.clone(), tail.clone()).await;
        let (mut lens, mut holes) = (BTreeSet::new(), 0);
        for _ in 0..CRASHES {
            let after = content(&node.disk().crash(), "file").expect("its name was flushed");
            assert_eq!(after[..1000], flushed);
            assert!(after.len() <= 3000);
            let survived = &after[1000..];
            for (at, byte) in survived.iter().enumerate() {
                assert!(*byte == tail[at] || *byte == 0, "byte {at} was never written");
            }
            holes += usize::from(survived.contains(&0));
            lens.insert(after.len());
        }
        assert!(lens.contains(&1000), "the tail is sometimes lost");
        assert!(lens.contains(&3000), "the tail sometimes survives");
        assert!(lens.iter().any(|len| (len - 1000) % 512 != 0), "torn inside a sector");
        assert!(holes > 0, "a later sector sometimes survives an earlier one");
    });
}

#[test]
fn a_name_survives_only_with_its_directory() {
    sim::run(7, |node| async move {
        let runtime = node.runtime();
        let file = create(&runtime, "file").await;
        file.write_at(0, vec![letters(b'a', 10)]).await.unwrap();
        file.sync_all().await.unwrap();
        let found = |disk: &SimDisk| content(disk, "file").is_some();
        let survived = (0..CRASHES).filter(|_| found(&node.disk().crash())).count();
        assert!(survived > 0 && survived < CRASHES as usize, "by chance without a flush of the directory");
        runtime.disk.sync_dir(node.data_dir()).await.unwrap();
        assert!((0..CRASHES).all(|_| found(&node.disk().crash())));
        runtime.disk.remove_file(&path("file")).await.unwrap();
        let survived = (0..CRASHES).filter(|_| found(&node.disk().crash())).count();
        assert!(survived > 0 && survived < CRASHES as usize, "so with a removal");
    });
}

#[test]
fn a_rename_between_directories_never_loses_the_file() {
    sim::run(7, |node| async move {
        let runtime = node.runtime();
        let (a, b) = (node.data_dir().join("a"), node.data_dir().join("b"));
        for dir in [&a, &b] {
            runtime.disk.create_dir_all(dir).await.unwrap();
        }
        let file = runtime.disk.open(&a.join("file"), OpenMode::CreateNew).await.unwrap();
        file.write_at(0, vec![letters(b'a', 10)]).await.unwrap();
        file.sync_data().await.unwrap();
        runtime.disk.sync_dir(node.data_dir()).await.unwrap();
        runtime.disk.sync_dir(&a).await.unwrap();
        runtime.disk.rename(&a.join("file"), &b.join("file")).await.unwrap();
        let mut seen = BTreeSet::new();
        for _ in 0..CRASHES {
            let names: Vec<_> = node.disk().crash().files().into_iter().map(|(at, _)| at).collect();
            assert!(!names.is_empty(), "lost");
            seen.insert(names);
        }
        assert_eq!(seen.len(), 3, "the old name, the new one, or both");
        runtime.disk.sync_dir(&a).await.unwrap();
        assert_eq!(node.disk().crash().files()[0].0, b.join("file"), "flushing the source moves it for good");
    });
}

/// Visits every point at which the power can fail while a small file is replaced.
#[test]
fn write_atomic_leaves_the_old_or_the_new_content_wherever_the_power_fails() {
    let replace = |cut: Option<u64>| {
        sim::run(11, |node| async move {
            let runtime = node.runtime();
            runtime.disk.write_atomic(&path("small"), letters(b'a', 100)).await.unwrap();
            let before = node.disk().counts().changes;
            if let Some(changes) = cut {
                node.disk().cut_power_after(changes);
            }
            let done = runtime.disk.write_atomic(&path("small"), letters(b'A', 700)).await;
            assert_eq!(done.is_err(), cut.is_some());
            assert_eq!(node.disk().is_cut(), cut.is_some());
            let images: Vec<_> = (0..30).map(|_| content(&node.disk().crash(), "small").unwrap()).collect();
            (node.disk().counts().changes - before, images)
        })
    };
    let (changes, images) = replace(None);
    assert!(images.iter().all(|image| *image == letters(b'A', 700)), "when it has returned, it is there");
    assert!(changes >= 5);
    for cut in 0..changes {
        for image in replace(Some(cut)).1 {
            assert!(image == letters(b'a', 100) || image == letters(b'A', 700), "torn after {cut} changes");
        }
    }
}

#[test]
fn after_a_failed_flush_the_next_one_succeeds_for_nothing() {
    let survived: BTreeSet<usize> = (0..20)
        .map(|seed| {
            sim::run(seed, |node| async move {
                let file = file_with_tail(&node.runtime(), letters(b'a', 10), letters(b'A', 5000)).await;
                node.disk().fail_sync_after(0);
                assert!(file.sync_data().await.is_err());
                file.sync_data().await.unwrap();
                assert_eq!(
                    file.read_at(10, 5000).await.unwrap(),
                    letters(b'A', 5000),
                    "it can still be read"
                );
                content(&node.disk().crash(), "file").unwrap().len()
            })
        })
        .collect();
    assert!(survived.iter().any(|len| *len < 5010), "but it is not always on the disk");
}

#[test]
fn reads_and_writes_fail_when_told_to() {
    sim::run(3, |node| async move {
        let file = create(&node.runtime(), "file").await;
        node.disk().fail_write_after(1);
        file.write_at(0, vec![letters(b'a', 100)]).await.unwrap();
        assert!(file.write_at(100, vec![letters(b'A', 100)]).await.is_err());
        file.write_at(100, vec![letters(b'A', 100)]).await.unwrap();
        node.disk().fail_read_after(0);
        assert!(file.read_at(0, 1).await.is_err());
        assert_eq!(file.read_at(0, 1).await.unwrap(), "a");
    });
}

#[test]
fn a_full_disk_refuses_until_there_is_room() {
    sim::run(3, |node| async move {
        let runtime = node.runtime();
        node.disk().set_capacity(Some(1000));
        let file = create(&runtime, "file").await;
        file.write_at(0, vec![letters(b'a', 900)]).await.unwrap();
        assert_eq!(runtime.disk.free_bytes(node.data_dir()).await.unwrap(), 100);
        assert_eq!(kind(file.write_at(900, vec![letters(b'a', 101)]).await), ErrorKind::StorageFull);
        assert_eq!(kind(file.allocate(900, 101).await), ErrorKind::StorageFull);
        file.write_at(0, vec![letters(b'A', 900)]).await.unwrap();
        file.truncate(900).await.unwrap();
        file.allocate(900, 100).await.unwrap();
        assert_eq!(
            kind(create(&runtime, "other").await.write_at(0, vec![letters(b'a', 1)]).await),
            ErrorKind::StorageFull
        );
        runtime.disk.remove_file(&path("file")).await.unwrap();
        assert_eq!(runtime.disk.free_bytes(node.data_dir()).await.unwrap(), 1000);
    });
}

#[test]
fn a_killed_process_leaves_all_it_wrote_and_its_handles_are_dead() {
    sim::run(3, |node| async move {
        let runtime = node.runtime();
        let file = file_with_tail(&runtime, letters(b'a', 10), letters(b'A', 500)).await;
        let lock = runtime.disk.lock_exclusive(&path("lock")).await.unwrap();
        node.disk().kill();
        assert!(file.read_at(0, 1).await.is_err());
        assert!(runtime.disk.exists(&path("file")).await.is_err());
        let restarted = node.runtime();
        assert_eq!(restarted.disk.read(&path("file")).await.unwrap().len(), 510);
        let _held = restarted.disk.lock_exclusive(&path("lock")).await.unwrap();
        drop(lock);
        assert_eq!(
            kind(restarted.disk.lock_exclusive(&path("lock")).await),
            ErrorKind::WouldBlock,
            "a dead process's guard frees nobody else's lock"
        );
        // Unflushed bytes of the dead process are still unflushed.
        let survived: BTreeSet<_> =
            (0..CRASHES).map(|_| content(&node.disk().crash(), "file").unwrap().len()).collect();
        assert!(survived.len() > 1);
        node.disk().power_cut();
        assert!(restarted.disk.read(&path("file")).await.is_err());
        assert!(node.runtime().disk.read(&path("file")).await.unwrap().len() >= 10);
    });
}

#[test]
fn a_flipped_bit_stays_flipped() {
    sim::run(3, |node| async move {
        let file = file_with_tail(&node.runtime(), letters(b'a', 10), Bytes::new()).await;
        node.disk().flip_bit(&path("file"), 3, 5).unwrap();
        assert_eq!(file.read_at(0, 5).await.unwrap(), "abcDe");
        assert_eq!(content(&node.disk().crash(), "file").unwrap(), "abcDefghij");
        assert!(node.disk().flip_bit(&path("file"), 10, 0).is_err());
    });
}

#[test]
fn a_slow_operation_goes_on_when_nobody_waits() {
    sim::run(3, |node| async move {
        let runtime = node.runtime();
        let file = create(&runtime, "file").await;
        node.disk().set_delay_max(Duration::from_secs(1));
        for _ in 0..10 {
            let write = file.write_at(0, vec![letters(b'a', 10)]);
            assert!(runtime.clock.timeout(Duration::ZERO, write).await.is_err());
        }
        runtime.clock.sleep(Duration::from_secs(2)).await;
        assert_eq!(node.disk().counts().writes, 10);
    });
}

#[test]
fn time_is_virtual_and_wall_time_may_be_wrong() {
    sim::run(3, |node| async move {
        let runtime = node.runtime();
        let (wall_ms, now) = (runtime.clock.wall_ms(), runtime.clock.now());
        runtime.clock.sleep(Duration::from_secs(3600)).await;
        assert_eq!(runtime.clock.now() - now, Duration::from_secs(3600));
        assert_eq!(runtime.clock.wall_ms() - wall_ms, 3_600_000);
        node.clock().set_skew_ms(-5000);
        assert_eq!(runtime.clock.wall_ms() - wall_ms, 3_595_000);
    });
}

#[test]
fn a_seed_gives_its_chance_and_each_core_its_own() {
    let draw = |seed, core| sim::run(seed, |node| async move { node.core(CoreId(core)).entropy.uuid() });
    assert_eq!(draw(1, 0), draw(1, 0));
    assert_ne!(draw(1, 0), draw(1, 1));
    assert_ne!(draw(1, 0), draw(2, 0));
}

#[test]
fn a_seed_gives_its_crashes() {
    let images = |seed| {
        sim::run(seed, |node| async move {
            let _file = file_with_tail(&node.runtime(), letters(b'a', 10), letters(b'A', 5000)).await;
            (0..20).map(|_| node.disk().crash().files()).collect::<Vec<_>>()
        })
    };
    assert_eq!(images(5), images(5));
    assert_ne!(images(5), images(6));
}

#[test]
#[should_panic(expected = "the roof fell")]
fn a_panic_of_a_task_nobody_awaits_fails_the_run() {
    sim::run(3, |_| async {
        drop(spawn(async { panic!("the roof fell") }));
        std::future::pending::<()>().await;
    });
}

#[test]
fn outside_a_cluster_there_is_no_network() {
    sim::run(3, |node: SimRuntime| async move {
        let net = node.runtime().net;
        assert_eq!(kind(net.listen("0.0.0.0:1").await), ErrorKind::Unsupported);
        assert_eq!(kind(net.connect("other:1").await), ErrorKind::Unsupported);
    });
}
