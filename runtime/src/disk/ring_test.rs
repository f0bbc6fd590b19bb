//! The ring on every flavour that the kernel has; `ring` itself is checked here, files as a whole in the suite.

use std::path::Path;

use tokio::task::LocalSet;

use super::*;
use crate::disk::pool::Pool;
use crate::disk::real::{OpenFile, RealDisk, flush_this_thread, leave_this_thread};

/// Runs `body` on every flavour that the kernel has; where it has none there is nothing to check.
fn on_every_flavour<F: Future<Output = ()>>(body: impl Fn(Rc<Ring>, Arc<OpenFile>) -> F) {
    for flavour in Flavour::BEST_FIRST {
        if let Err(error) = try_flavour(flavour) {
            eprintln!("skipped {flavour:?}: {error}");
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let (pool, local) = (Pool::new(2, "disk-pool"), LocalSet::new());
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .on_thread_park(flush_this_thread)
            .build()
            .unwrap();
        local.block_on(&tokio, async {
            let disk = RealDisk::start(Some(flavour), pool.clone(), pool.clone(), [].into()).unwrap();
            body(disk.ring().unwrap(), new_file(dir.path(), &pool)).await;
        });
        drop(local);
        leave_this_thread();
        pool.finish();
    }
}

fn new_file(dir: &Path, pool: &Pool) -> Arc<OpenFile> {
    let file =
        std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(dir.join("file")).unwrap();
    Arc::new(OpenFile::new(file, pool.clone(), pool.clone(), 0))
}

#[test]
fn every_operation_works_on_every_flavour() {
    on_every_flavour(|ring, file| async move {
        let bufs: Vec<_> = (0..3000u32).map(|n| Bytes::from(n.to_le_bytes().repeat(25))).collect();
        let all: Bytes = bufs.iter().flatten().copied().collect();
        ring.write(&file, 100, bufs).await.unwrap();
        ring.sync(&file, true).await.unwrap();
        ring.sync(&file, false).await.unwrap();
        match ring.allocate(&file, 0, 1 << 20).await {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported),
        }
        let read = ring.read(&file, 100, all.len() + 1).await.unwrap();
        assert!(read == all);
        assert_eq!(ring.read(&file, 0, 100).await.unwrap(), vec![0; 100]);
    });
}

#[test]
fn more_operations_than_the_queues_hold() {
    on_every_flavour(|ring, file| async move {
        const EACH: usize = 8;
        let count = COMPLETIONS as usize * 3;
        let writes: Vec<_> = (0..count)
            .map(|n| {
                let (ring, file) = (ring.clone(), file.clone());
                tokio::task::spawn_local(async move {
                    let bytes = Bytes::copy_from_slice(&n.to_le_bytes());
                    ring.write(&file, (n * EACH) as u64, vec![bytes]).await
                })
            })
            .collect();
        for write in writes {
            write.await.unwrap().unwrap();
        }
        let read = ring.read(&file, 0, count * EACH).await.unwrap();
        assert!(read.chunks(EACH).map(|n| n.to_vec()).eq((0..count).map(|n| n.to_le_bytes().to_vec())));
    });
}

#[test]
fn a_ring_that_goes_waits_for_its_orphans() {
    on_every_flavour(|ring, file| async move {
        let orphans: Vec<_> = (0..200)
            .map(|n| {
                let (ring, file) = (ring.clone(), file.clone());
                tokio::task::spawn_local(async move {
                    if n % 2 == 0 {
                        let bytes = Bytes::from(vec![7; 1 << 16]);
                        ring.write(&file, n << 16, vec![bytes]).await.map(|()| Bytes::new())
                    } else {
                        ring.read(&file, n << 16, 1 << 16).await
                    }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(ring.inner.borrow().slots.in_flight() > 0);
        orphans.iter().for_each(|orphan| orphan.abort());
        while !orphans.iter().all(|orphan| orphan.is_finished()) {
            tokio::task::yield_now().await;
        }
        let mut inner = ring.inner.borrow_mut();
        inner.drain().unwrap();
        assert_eq!(inner.slots.in_flight(), 0);
        let released = std::mem::take(&mut inner.taken);
        drop(inner);
        drop(released);
        // What is left: our own handle.
        assert_eq!(Arc::strong_count(&file), 1, "orphans give up their file with the answer");
    });
}
