//! Connections, real and simulated: the same bytes arrive.

use std::io::ErrorKind;

use bytes::Bytes;
use ouzel_runtime::disk::{BackendChoice, OpenMode, SharedFile};
use ouzel_runtime::net::{FileSent, Stream};
use ouzel_runtime::sim::{Cluster, ClusterConfig};
use ouzel_runtime::{Runtime, cores, spawn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const FILE_BYTES: usize = 3_000_000;

fn content() -> Bytes {
    (0..FILE_BYTES).map(|at| (at % 253) as u8).collect()
}

async fn shared_file(runtime: &Runtime, dir: &std::path::Path) -> SharedFile {
    let file = runtime.disk.open(&dir.join("file"), OpenMode::CreateNew).await.unwrap();
    file.write_at(0, vec![content()]).await.unwrap();
    file.share()
}

/// Sends slices of a file with both kinds of writing ends, and a range that the file does not have.
async fn send(mut stream: Stream, file: SharedFile) {
    stream.set_nodelay(true).unwrap();
    stream.write_all(b"head").await.unwrap();
    let sent = stream.send_file(&file, 0, FILE_BYTES).await.unwrap();
    let slices = (FILE_BYTES as u64).div_ceil(256 * 1024);
    assert_eq!(sent, FileSent { resident: slices, read_in: 0, copied: 0 });
    let (_read, mut write) = stream.into_split();
    write.send_file(&file, 1_000_001, 77).await.unwrap();
    let (pieces, mut written) = ([&b"ta"[..], b"il"].map(std::io::IoSlice::new), 0);
    while written < 4 {
        written += write.write_more(&pieces[written / 2..]).await.unwrap();
        assert_eq!(written % 2, 0, "so few bytes go at once");
    }
    let error = write.send_file(&file, FILE_BYTES as u64 - 5, 6).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    write.shutdown().await.unwrap();
}

async fn receive(stream: Stream) {
    let mut received = Vec::new();
    let (mut read, _write) = stream.into_split();
    read.read_to_end(&mut received).await.unwrap();
    let file = content();
    let expected =
        [b"head", &file[..], &file[1_000_001..1_000_078], b"tail", &file[FILE_BYTES - 5..]].concat();
    assert!(received == expected);
}

#[test]
fn a_file_goes_over_a_real_connection() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_owned();
    cores::run_one(BackendChoice::Auto, &[], |runtime| async move {
        let file = shared_file(&runtime, &data).await;
        let listener = runtime.net.listen("localhost:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let sender = spawn(async move { send(listener.accept().await.unwrap().0, file).await });
        receive(runtime.net.connect(&address).await.unwrap()).await;
        sender.await.unwrap();
    })
    .unwrap();
}

/// Calls were counted: a socket that takes less at a time than a slice made several of one.
#[test]
fn a_slice_counts_once_however_little_the_socket_takes_at_a_time() {
    const PIECES: u64 = 12;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_owned();
    cores::run_one(BackendChoice::Auto, &[], |runtime| async move {
        let file = runtime.disk.open(&data.join("file"), OpenMode::CreateNew).await.unwrap();
        for at in 0..PIECES {
            file.write_at(at * FILE_BYTES as u64, vec![content()]).await.unwrap();
        }
        let (file, bytes) = (file.share(), PIECES as usize * FILE_BYTES);
        let listener = runtime.net.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let reader = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            let (mut received, mut buffer) = (0, [0; 10_000]);
            while received < bytes {
                let read = std::io::Read::read(&mut stream, &mut buffer).unwrap();
                assert!(read > 0, "{received} bytes");
                received += read;
            }
        });
        let mut stream = listener.accept().await.unwrap().0;
        let sent = stream.send_file(&file, 0, bytes).await.unwrap();
        let slices = (bytes as u64).div_ceil(256 * 1024);
        assert_eq!(sent.resident + sent.read_in + sent.copied, slices, "{sent:?}");
        reader.join().unwrap();
    })
    .unwrap();
}

#[test]
fn a_file_goes_over_a_simulated_connection() {
    let mut cluster = Cluster::new(&ClusterConfig::new(1));
    cluster.node("server", 1, |node| async move {
        let runtime = node.runtime();
        let file = shared_file(&runtime, node.data_dir()).await;
        let listener = runtime.net.listen("0.0.0.0:7").await?;
        let (stream, _) = listener.accept().await?;
        // It moves between cores, as a real one.
        send(stream.into_handoff()?.into_stream()?, file).await;
        Ok(())
    });
    cluster.client("client", |node| async move {
        let net = node.runtime().net;
        assert_eq!(net.connect("server:8").await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        receive(net.connect("server:7").await?).await;
        Ok(())
    });
    cluster.run().unwrap();
}

#[test]
fn a_nodes_panic_fails_the_cluster() {
    let mut cluster = Cluster::new(&ClusterConfig::new(1));
    cluster.node("server", 2, |node| async move {
        node.run_cores(vec![false, true], |_, panics| async move {
            if panics {
                drop(spawn(async { panic!("the roof fell") }));
            }
            std::future::pending().await
        })
        .await
    });
    cluster.client("client", |_| std::future::pending());
    let error = cluster.run().unwrap_err();
    assert!(error.to_string().contains("the roof fell"), "{error}");
}

#[test]
fn an_address_that_is_none_is_an_error() {
    cores::run_one(BackendChoice::Auto, &[], |runtime| async move {
        for address in ["", "no-port", "127.0.0.1:port", "127.0.0.1:70000"] {
            assert!(runtime.net.listen(address).await.is_err(), "'{address}'");
            assert!(runtime.net.connect(address).await.is_err(), "'{address}'");
        }
    })
    .unwrap();
}
