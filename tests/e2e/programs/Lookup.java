/* SPDX-License-Identifier: Apache-2.0 */
import java.net.InetAddress;
import java.net.UnknownHostException;

/** Print a name's addresses, or "unknown". */
public class Lookup {
	public static void main(String[] args)
	{
		try {
			for (InetAddress a : InetAddress.getAllByName(args[0]))
				System.out.println(a.getHostAddress());
		} catch (UnknownHostException e) {
			System.out.println("unknown");
		}
	}
}
