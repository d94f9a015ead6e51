package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// reachWithin is how long an answer may take.
const reachWithin = 1500 * time.Millisecond

// reach tries to reach a target, "tcp:1.2.3.4:22", "udp:1.2.3.4:53" or "icmp:1.2.3.4": a connection, or an answer to what
// is sent.
func reach(ctx context.Context, target string) error {
	transport, address, _ := strings.Cut(target, ":")
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	if transport == "icmp" {
		return ping(address, reachWithin)
	}
	conn, err := new(net.Dialer).DialContext(ctx, transport, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if transport == "tcp" {
		return nil
	}
	_ = conn.SetDeadline(time.Now().Add(reachWithin))
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 64))
	return err
}

// reachAll tries all targets at once: "reached", or what came in between.
func reachAll(ctx context.Context, targets []string) map[string]string {
	answers := make(map[string]string)
	var mu sync.Mutex
	var trying sync.WaitGroup
	for _, target := range targets {
		trying.Go(func() {
			answer := "reached"
			if err := reach(ctx, target); err != nil {
				answer = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			answers[target] = answer
		})
	}
	trying.Wait()
	return answers
}

// nag tries a target again and again until ctx ends.
func nag(ctx context.Context, target string) {
	for tries := 1; ctx.Err() == nil; tries++ {
		if err := reach(ctx, target); err == nil {
			fmt.Println("reached", target, "at try", tries)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
