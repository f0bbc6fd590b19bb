//! What the machine's own doors cost: a task's turn, a message from one core to another and back, and a write through the ring.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "the macros of criterion make functions without them")]

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ouzel_runtime::cores::{self, CoresConfig};
use ouzel_runtime::disk::{BackendChoice, OpenMode};
use ouzel_runtime::mailbox::{MailReceiver, MailSender, channel};

/// A task that has nothing to do, again and again; how long so many turns of it took.
fn turns(count: u64) -> Duration {
    let took = cores::run_one(BackendChoice::Blocking, &[], |runtime| async move {
        let began = runtime.clock.now();
        let task = ouzel_runtime::spawn(async move {
            for _ in 0..count {
                ouzel_runtime::yield_now().await;
            }
        });
        task.await.expect("a good end");
        runtime.clock.now() - began
    });
    took.expect("a core")
}

fn task(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("task");
    group.throughput(Throughput::Elements(1));
    group.bench_function("turn", |bencher| bencher.iter_custom(turns));
    group.finish();
}

/// One core asks and the other answers, so often; how long that took.
fn hops(count: u64) -> Duration {
    let (ask, asked) = channel::<u64>();
    let (answer, answered) = channel::<u64>();
    let (tell, told) = mpsc::channel();
    let config = CoresConfig { count: 2, backend: BackendChoice::Blocking, ..CoresConfig::default() };
    type Seat = (MailSender<u64>, MailReceiver<u64>, Option<mpsc::Sender<Duration>>);
    let seats: Vec<Seat> = vec![(ask, answered, Some(tell)), (answer, asked, None)];
    let cores = cores::start(&config, seats, move |runtime, (to, mut from, tell)| async move {
        let (began, mut mail) = (runtime.clock.now(), Vec::new());
        for number in 0..count {
            if tell.is_some() {
                to.send(number).map_err(|_| "the other core is gone")?;
            }
            if from.recv_many(&mut mail).await == 0 {
                return Err("the other core is gone".into());
            }
            mail.clear();
            if tell.is_none() {
                to.send(number).map_err(|_| "the first core is gone")?;
            }
        }
        if let Some(tell) = tell {
            tell.send(runtime.clock.now() - began)?;
        }
        Ok(())
    });
    cores.expect("two cores").join().expect("a good end");
    told.recv().expect("the first core has told")
}

fn mailbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mailbox");
    group.throughput(Throughput::Elements(1));
    group.bench_function("to another core and back", |bencher| bencher.iter_custom(hops));
    group.finish();
}

/// Writes of so many bytes, one after the other, behind each other in 64 MiB of a file, which stay in the page cache.
fn writes(backend: BackendChoice, bytes: usize, count: u64) -> Duration {
    const FILE_BYTES: u64 = 64 << 20;
    let folder = tempfile::tempdir().expect("a folder");
    let data: Vec<PathBuf> = vec![folder.path().to_owned()];
    let took = cores::run_one(backend, &data, |runtime| {
        let path = folder.path().join("file");
        async move {
            let file = runtime.disk.open(&path, OpenMode::CreateNew).await.expect("a file");
            let content = Bytes::from(vec![7; bytes]);
            let began = runtime.clock.now();
            for number in 0..count {
                let at = number * bytes as u64 % FILE_BYTES;
                file.write_at(at, vec![content.clone()]).await.expect("written");
            }
            runtime.clock.now() - began
        }
    });
    took.expect("a core")
}

fn ring(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write to the page cache");
    for (name, backend) in
        [("io_uring or what there is", BackendChoice::Auto), ("blocking", BackendChoice::Blocking)]
    {
        for kib in [4, 64] {
            let bytes = kib << 10;
            group.throughput(Throughput::Bytes(bytes as u64));
            group.bench_function(BenchmarkId::new(name, format!("{kib} KiB")), |bencher| {
                bencher.iter_custom(|count| writes(backend, bytes, count));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, task, mailbox, ring);
criterion_main!(benches);
