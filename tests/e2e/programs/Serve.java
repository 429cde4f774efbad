// SPDX-License-Identifier: Apache-2.0
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.Iterator;

/** Usage: Serve socket|nio|http PORT. Tells each client its own address. */
public final class Serve {
    private static byte[] answer(InetAddress peer) {
        return ("HTTP/1.0 200 OK\r\n\r\n" + peer.getHostAddress() + "\n")
            .getBytes(StandardCharsets.UTF_8);
    }

    private static void socket(int port) throws IOException {
        try (ServerSocket server = new ServerSocket(port, 1024)) {
            for (;;) {
                Socket client = server.accept();
                new Thread(() -> {
                    try (Socket s = client) {
                        s.getInputStream().read(new byte[4096]);
                        s.getOutputStream().write(answer(s.getInetAddress()));
                    } catch (IOException e) {
                        // the client left
                    }
                }).start();
            }
        }
    }

    private static void nio(int port) throws IOException {
        Selector selector = Selector.open();
        ServerSocketChannel server = ServerSocketChannel.open();
        server.configureBlocking(false);
        server.bind(new InetSocketAddress(port), 1024);
        server.register(selector, SelectionKey.OP_ACCEPT);
        for (;;) {
            selector.select();
            for (Iterator<SelectionKey> i = selector.selectedKeys().iterator();
                    i.hasNext(); i.remove()) {
                SelectionKey key = i.next();
                if (key.isAcceptable()) {
                    SocketChannel client = server.accept();
                    if (client != null) {
                        client.configureBlocking(false);
                        client.register(selector, SelectionKey.OP_READ);
                    }
                } else {
                    try (SocketChannel client = (SocketChannel) key.channel()) {
                        client.read(ByteBuffer.allocate(4096));
                        client.write(ByteBuffer.wrap(answer(
                            ((InetSocketAddress) client.getRemoteAddress())
                                .getAddress())));
                    } catch (IOException e) {
                        // the client left
                    }
                }
            }
        }
    }

    private static void http(int port) throws IOException {
        HttpServer server = HttpServer.create(new InetSocketAddress(port), 1024);
        server.createContext("/", exchange -> {
            byte[] body = (exchange.getRemoteAddress().getAddress()
                .getHostAddress() + "\n").getBytes(StandardCharsets.UTF_8);
            exchange.sendResponseHeaders(200, body.length);
            try (OutputStream out = exchange.getResponseBody()) {
                out.write(body);
            }
        });
        server.start();
    }

    public static void main(String[] args) throws IOException {
        int port = Integer.parseInt(args[1]);
        switch (args[0]) {
        case "socket": socket(port); break;
        case "nio": nio(port); break;
        default: http(port);
        }
    }
}
