// SPDX-License-Identifier: Apache-2.0
// Usage: java Fetch httpclient|socket|nio|async HOST PORT
// Fetches /hello in one of Java's ways and prints the body.

import java.io.ByteArrayOutputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.channels.AsynchronousSocketChannel;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.concurrent.TimeUnit;

public class Fetch {
	static final int TIMEOUT_MS = 20000;

	static byte[] request(String host) {
		return ("GET /hello HTTP/1.0\r\nHost: " + host + "\r\n\r\n").getBytes();
	}

	static String body(byte[] answer) {
		String text = new String(answer);
		return text.substring(text.indexOf("\r\n\r\n") + 4);
	}

	static String bracket(String host) {
		return host.contains(":") ? "[" + host + "]" : host;
	}

	static String httpClient(String host, int port) throws Exception {
		HttpClient client = HttpClient.newBuilder()
			.connectTimeout(Duration.ofMillis(TIMEOUT_MS)).build();
		URI uri = new URI("http://" + bracket(host) + ":" + port + "/hello");
		HttpRequest request = HttpRequest.newBuilder(uri)
			.timeout(Duration.ofMillis(TIMEOUT_MS)).build();
		return client.send(request, HttpResponse.BodyHandlers.ofString()).body();
	}

	static String socket(String host, int port) throws Exception {
		try (Socket socket = new Socket()) {
			socket.connect(new InetSocketAddress(host, port), TIMEOUT_MS);
			socket.setSoTimeout(TIMEOUT_MS);
			socket.setTcpNoDelay(true);
			InetSocketAddress remote =
				(InetSocketAddress) socket.getRemoteSocketAddress();
			if (remote.getPort() != port)
				throw new Exception("peer is " + remote);
			socket.getOutputStream().write(request(host));
			return body(socket.getInputStream().readAllBytes());
		}
	}

	static String nio(String host, int port) throws Exception {
		try (SocketChannel channel = SocketChannel.open();
				Selector selector = Selector.open()) {
			channel.configureBlocking(false);
			// registered before the connect, as netty does
			SelectionKey key = channel.register(selector, SelectionKey.OP_CONNECT);
			if (!channel.connect(new InetSocketAddress(host, port))) {
				if (selector.select(TIMEOUT_MS) != 1)
					throw new Exception("connect timed out");
				channel.finishConnect();
			}
			channel.write(ByteBuffer.wrap(request(host)));
			key.interestOps(SelectionKey.OP_READ);
			ByteArrayOutputStream answer = new ByteArrayOutputStream();
			ByteBuffer buffer = ByteBuffer.allocate(4096);
			for (;;) {
				selector.selectedKeys().clear();
				if (selector.select(TIMEOUT_MS) != 1)
					throw new Exception("read timed out");
				int n = channel.read(buffer.clear());
				if (n < 0)
					return body(answer.toByteArray());
				answer.write(buffer.array(), 0, n);
			}
		}
	}

	static String async(String host, int port) throws Exception {
		try (AsynchronousSocketChannel channel = AsynchronousSocketChannel.open()) {
			channel.connect(new InetSocketAddress(host, port))
				.get(TIMEOUT_MS, TimeUnit.MILLISECONDS);
			channel.write(ByteBuffer.wrap(request(host))).get();
			ByteArrayOutputStream answer = new ByteArrayOutputStream();
			ByteBuffer buffer = ByteBuffer.allocate(4096);
			int n;
			while ((n = channel.read(buffer.clear())
					.get(TIMEOUT_MS, TimeUnit.MILLISECONDS)) >= 0)
				answer.write(buffer.array(), 0, n);
			return body(answer.toByteArray());
		}
	}

	public static void main(String[] args) throws Exception {
		String host = args[1];
		int port = Integer.parseInt(args[2]);
		switch (args[0]) {
		case "httpclient": System.out.print(httpClient(host, port)); break;
		case "socket": System.out.print(socket(host, port)); break;
		case "nio": System.out.print(nio(host, port)); break;
		case "async": System.out.print(async(host, port)); break;
		default: throw new Exception("unknown way " + args[0]);
		}
	}
}
