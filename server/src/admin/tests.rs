//! The admin HTTP over a node that is only values, spoken to over a socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[derive(Clone, Default)]
struct MadeUp {
    ready: Arc<AtomicBool>,
    faults: Vec<String>,
}

impl MadeUp {
    fn serving() -> MadeUp {
        MadeUp { ready: Arc::new(AtomicBool::new(true)), faults: Vec::new() }
    }
}

impl Node for MadeUp {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    fn waits_for(&self) -> Option<String> {
        (!self.is_ready()).then(|| "seed 10.0.0.2:33146 does not answer".to_owned())
    }

    fn cluster_id(&self) -> Option<String> {
        self.is_ready().then(|| "cluster".to_owned())
    }

    fn kafka_address(&self) -> Option<String> {
        self.is_ready().then(|| "127.0.0.1:9092".to_owned())
    }

    fn disk_backend(&self) -> String {
        "uring".to_owned()
    }

    async fn sample(&self) -> Option<CoreSample> {
        self.is_ready().then(CoreSample::default)
    }

    async fn faults(&self) -> Option<Vec<String>> {
        self.is_ready().then(|| self.faults.clone())
    }
}

/// Serves `node` for as long as `ask` asks, which happens on a thread of its own, as clients do.
fn with_admin(node: MadeUp, ask: impl FnOnce(SocketAddr) + Send + 'static) {
    let listener = bind(&Address::parse("127.0.0.1:0").unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let facts = Facts {
        version: "0.1.0",
        node_id: 7,
        cores: 2,
        data_dir: "./data".to_owned(),
        admin_address: address.to_string(),
        started: Instant::now(),
        started_s: 0.0,
    };
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(async {
        let (done, asked) = tokio::sync::oneshot::channel();
        let asking = std::thread::spawn(move || {
            ask(address);
            // The other end is gone only when the test has failed.
            let _ = done.send(());
        });
        tokio::select! {
            () = serve(listener, node, facts) => panic!("the admin HTTP ended"),
            _ = asked => {}
        }
        asking.join().unwrap();
    });
}

/// Status, content type and body.
fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: ouzel\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let content_type = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    (status, content_type.to_owned(), body.to_owned())
}

fn get_json(address: SocketAddr, path: &str) -> (u16, serde_json::Value) {
    let (status, content_type, body) = get(address, path);
    assert_eq!(content_type, "application/json", "{path}");
    (status, serde_json::from_str(&body).unwrap())
}

#[test]
fn readiness_follows_the_node_and_liveness_the_process() {
    let node = MadeUp::default();
    let ready = node.ready.clone();
    with_admin(node, move |address| {
        for (now, status) in [(false, 503), (true, 200), (false, 503)] {
            ready.store(now, Ordering::SeqCst);
            let (found, _, words) = get(address, "/readyz");
            assert_eq!(found, status);
            let waits = "not ready: seed 10.0.0.2:33146 does not answer\n";
            assert_eq!(words, if now { "ready\n" } else { waits });
            assert_eq!(get(address, "/livez").0, 200);
        }
    });
}

#[test]
fn the_node_is_described() {
    with_admin(MadeUp::serving(), |address| {
        let (status, node) = get_json(address, "/v1/node");
        assert_eq!(status, 200);
        for (key, value) in [
            ("version", json!("0.1.0")),
            ("node_id", json!(7)),
            ("cluster_id", json!("cluster")),
            ("ready", json!(true)),
            ("cores", json!(2)),
            ("disk_backend", json!("uring")),
            ("kafka_address", json!("127.0.0.1:9092")),
            ("admin_address", json!(address.to_string())),
            ("data_dir", json!("./data")),
        ] {
            assert_eq!(node[key], value, "{key}");
        }
        assert!(node["uptime_seconds"].is_u64());
    });
}

#[test]
fn faults_degrade_the_node() {
    for (faults, status) in [(vec![], "ok"), (vec!["the log of t-1 failed".to_owned()], "degraded")] {
        let node = MadeUp { faults: faults.clone(), ..MadeUp::serving() };
        with_admin(node, move |address| {
            let answer = json!({ "status": status, "faults": faults });
            assert_eq!(get_json(address, "/v1/health"), (200, answer));
        });
    }
}

#[test]
fn every_endpoint_of_the_table_is_served_and_no_other() {
    with_admin(MadeUp::serving(), |address| {
        for (path, _) in ENDPOINTS {
            assert_eq!(get(address, path).0, 200, "{path}");
        }
        let (status, content_type, body) = get(address, "/metrics");
        assert_eq!((status, content_type.as_str()), (200, exposition::CONTENT_TYPE));
        assert!(body.contains("\nouzel_ready 1\n"), "{body}");
        let (status, answer) = get_json(address, "/v1/nodes");
        assert_eq!(status, 404);
        assert_eq!(
            answer["error"],
            json!("there is no /v1/nodes; there are /livez, /readyz, /metrics, /v1/node, /v1/health")
        );
    });
}

#[test]
fn a_node_that_does_not_serve_says_who_it_is_but_has_no_numbers() {
    with_admin(MadeUp::default(), |address| {
        for path in ["/metrics", "/v1/health"] {
            let (status, answer) = get_json(address, path);
            let words = json!("the node does not serve: it recovers its logs, or it drains");
            assert_eq!((status, &answer["error"]), (503, &words), "{path}");
        }
        let (status, node) = get_json(address, "/v1/node");
        assert_eq!((status, &node["ready"], &node["cluster_id"]), (200, &json!(false), &json!(null)));
    });
}

#[test]
fn an_address_that_cannot_be_had_is_named_with_the_mend() {
    let taken = bind(&Address::parse("127.0.0.1:0").unwrap()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (address, what) in [
        (address.as_str(), "is in use: stop who listens there, or choose another"),
        ("192.0.2.1:9644", "is not an address of this machine: choose one of its own"),
    ] {
        let failure = bind(&Address::parse(address).unwrap()).unwrap_err();
        assert_eq!(
            failure.to_string(),
            format!("the admin address {address} {what} with --admin-listener HOST:PORT")
        );
    }
}
