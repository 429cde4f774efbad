// SPDX-License-Identifier: Apache-2.0
// Usage: serve PORT. A thread for each client, which is told its own address.
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener};

fn main() {
    let port: u16 = std::env::args().nth(1).unwrap().parse().unwrap();
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
    for stream in listener.incoming() {
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(_) => continue,
        };
        std::thread::spawn(move || {
            let peer = stream.peer_addr().unwrap().ip();
            let mut request = [0u8; 4096];
            if stream.read(&mut request).unwrap_or(0) > 0 {
                let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{}\n", peer);
            }
        });
    }
}
