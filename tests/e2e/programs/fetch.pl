# SPDX-License-Identifier: Apache-2.0
# Usage: fetch.pl HOST PORT: fetches /hello over IO::Socket, with a timeout,
# which makes it a non-blocking connect.
use strict;
use warnings;
use IO::Socket::IP;

my ($host, $port) = @ARGV;
my $sock = IO::Socket::IP->new(PeerHost => $host, PeerPort => $port,
	Proto => 'tcp', Timeout => 20) or die "connect: $@\n";
die 'peer is ' . $sock->peerhost . "\n" if $sock->peerhost ne $host;
print $sock "GET /hello HTTP/1.0\r\nHost: x\r\n\r\n";
my $answer = join '', <$sock>;
$answer =~ s/.*?\r\n\r\n//s;
print $answer;
