// SPDX-License-Identifier: Apache-2.0

// Print a name's addresses, or "unknown", by Go's own resolver.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
)

func main() {
	resolver := net.Resolver{PreferGo: true}
	addrs, err := resolver.LookupHost(context.Background(), os.Args[1])
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		fmt.Println("unknown")
	} else if err != nil {
		fmt.Println(err)
	}
	for _, addr := range addrs {
		fmt.Println(addr)
	}
}
