// SPDX-License-Identifier: Apache-2.0
// Usage: fetch HOST PORT: fetches /hello with Rust's std, once blocking and once
// with a timeout (a non-blocking connect), and prints the second body.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

fn fetch(mut stream: TcpStream, wanted: SocketAddr) -> std::io::Result<String> {
    assert_eq!(stream.peer_addr()?, wanted);
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_nodelay(true)?;
    assert!(stream.nodelay()?);
    write!(stream, "GET /hello HTTP/1.0\r\nHost: x\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.find("\r\n\r\n").expect("a header") + 4;
    Ok(answer[body..].to_string())
}

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let host: std::net::IpAddr = args[1].parse().expect("an address");
    let addr = SocketAddr::new(host, args[2].parse().expect("a port"));
    let first = fetch(TcpStream::connect(addr)?, addr)?;
    let limit = Duration::from_secs(20);
    let second = fetch(TcpStream::connect_timeout(&addr, limit)?, addr)?;
    assert_eq!(first, second);
    print!("{}", second);
    Ok(())
}
