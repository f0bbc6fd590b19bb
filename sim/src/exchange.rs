//! Two nodes exchange random bytes, keep what they get on disk, and one of them loses its power on the way.
//!
//! ```text
//!   client ──┐            asks each node, over and over
//!            ▼
//!   node:  core 0 accepts, draws an answer, hands it to core 1 by mailbox
//!          core 1 appends it to a file, flushes every third time, tells core 0, which answers
//! ```

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::disk::OpenMode;
use ouzel_runtime::mailbox::{self, MailReceiver, MailSender};
use ouzel_runtime::net::Stream;
use ouzel_runtime::sim::{Cluster, ClusterConfig, SimRuntime};
use ouzel_runtime::{File, Runtime, spawn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use crate::content::sum;
use crate::trace::Trace;

const NODES: [&str; 2] = ["ada", "bo"];
const PORT: u16 = 9092;
const ROUNDS: u32 = 30;
/// Virtual time at which the first node loses its power, and at which it comes back.
const POWER_CUT_AT: Duration = Duration::from_millis(300);
const POWER_BACK_AT: Duration = Duration::from_millis(500);
/// How long a client waits for an answer before it connects anew.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(200);

/// Runs the exchange of a seed and returns its trace.
///
/// # Errors
/// When a node or the client fails, or the run takes too long.
pub fn run(seed: u64) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let trace = Trace::default();
    let mut cluster = Cluster::new(&ClusterConfig::new(seed));
    for name in NODES {
        let trace = trace.clone();
        let disk = cluster.node(name, 2, move |node| serve(node, name, trace.clone()));
        disk.set_delay_max(Duration::from_millis(3));
    }
    let for_client = trace.clone();
    cluster.client("client", move |node| ask(node, for_client));
    let (mut is_cut, mut is_back) = (false, false);
    while !cluster.step()? {
        if !is_cut && cluster.elapsed() >= POWER_CUT_AT {
            is_cut = true;
            cluster.power_cut(NODES[0]);
        }
        if !is_back && cluster.elapsed() >= POWER_BACK_AT {
            is_back = true;
            cluster.restart(NODES[0]);
        }
    }
    Ok(trace.lines())
}

/// What core 0 asks of core 1: keep these bytes, and say so.
type Keep = (Bytes, oneshot::Sender<()>);

enum Seat {
    Accepts(MailSender<Keep>),
    Keeps(MailReceiver<Keep>),
}

async fn serve(node: SimRuntime, name: &'static str, trace: Trace) -> CoreResult {
    let (sender, receiver) = mailbox::channel();
    let seats = vec![Seat::Accepts(sender), Seat::Keeps(receiver)];
    node.run_cores(seats, move |runtime, seat| {
        let trace = trace.clone();
        async move {
            match seat {
                Seat::Accepts(keeper) => accept(runtime, name, trace, keeper).await,
                Seat::Keeps(mail) => keep(runtime, name, trace, mail).await,
            }
        }
    })
    .await
}

async fn accept(runtime: Runtime, name: &'static str, trace: Trace, keeper: MailSender<Keep>) -> CoreResult {
    let listener = runtime.net.listen(&format!("0.0.0.0:{PORT}")).await?;
    let keeper = Rc::new(keeper);
    loop {
        let (stream, _) = listener.accept().await?;
        let (runtime, keeper, trace) = (runtime.clone(), keeper.clone(), trace.clone());
        spawn(async move {
            if let Err(error) = answer(&runtime, stream, &keeper, name, &trace).await {
                trace.note(runtime.clock.wall_ms(), name, format_args!("a connection ended: {error}"));
            }
        });
    }
}

async fn answer(
    runtime: &Runtime,
    mut stream: Stream,
    keeper: &MailSender<Keep>,
    name: &str,
    trace: &Trace,
) -> CoreResult {
    loop {
        let question = stream.read_u64().await?;
        let answer = runtime.entropy.u64() ^ question;
        let (kept, is_kept) = oneshot::channel();
        keeper.send((Bytes::copy_from_slice(&answer.to_be_bytes()), kept))?;
        is_kept.await?;
        trace.note(runtime.clock.wall_ms(), name, format_args!("{question:016x} -> {answer:016x}"));
        stream.write_u64(answer).await?;
    }
}

async fn keep(runtime: Runtime, name: &str, trace: Trace, mut mail: MailReceiver<Keep>) -> CoreResult {
    let path = std::path::Path::new(ouzel_runtime::sim::DATA_DIR).join("answers");
    let file: File = runtime.disk.open(&path, OpenMode::CreateOrOpen).await?;
    runtime.disk.sync_dir(std::path::Path::new(ouzel_runtime::sim::DATA_DIR)).await?;
    let mut end = file.len().await?;
    let found = file.read_at(0, usize::try_from(end)?).await?;
    trace.note(runtime.clock.wall_ms(), name, format_args!("starts with {end} bytes, sum {}", sum(&found)));
    let (mut arrived, mut kept) = (Vec::new(), 0u32);
    while mail.recv_many(&mut arrived).await > 0 {
        for (bytes, done) in arrived.drain(..) {
            let len = bytes.len() as u64;
            file.write_at(end, vec![bytes]).await?;
            end += len;
            kept += 1;
            if kept.is_multiple_of(3) {
                file.sync_data().await?;
            }
            // The connection may be gone by now.
            let _ = done.send(());
        }
    }
    Ok(())
}

async fn ask(node: SimRuntime, trace: Trace) -> CoreResult {
    let runtime = node.runtime();
    for name in NODES {
        let mut stream: Option<Stream> = None;
        for round in 0..ROUNDS {
            let question = runtime.entropy.u64();
            let exchange = async {
                let mut stream = match stream.take() {
                    Some(stream) => stream,
                    None => runtime.net.connect(&format!("{name}:{PORT}")).await?,
                };
                stream.write_u64(question).await?;
                let answer = stream.read_u64().await?;
                std::io::Result::Ok((stream, answer))
            };
            match runtime.clock.timeout(ANSWER_TIME_MAX, exchange).await {
                Ok(Ok((open, answer))) => {
                    stream = Some(open);
                    let wall_ms = runtime.clock.wall_ms();
                    trace.note(wall_ms, "client", format_args!("{name} {round}: {answer:016x}"));
                }
                Ok(Err(error)) => {
                    trace.note(runtime.clock.wall_ms(), "client", format_args!("{name} {round}: {error}"));
                    runtime.clock.sleep(Duration::from_millis(20)).await;
                }
                Err(_) => {
                    trace.note(runtime.clock.wall_ms(), "client", format_args!("{name} {round}: no answer"))
                }
            }
        }
    }
    Ok(())
}
