package main

import (
	"net"
	"testing"
)

func TestAnswers(t *testing.T) {
	var held []net.Conn
	for _, tt := range []struct {
		name   string
		accept func(net.Conn)
		want   bool
	}{
		{"a program that waits to be asked", func(conn net.Conn) { held = append(held, conn) }, true},
		{"a program that speaks first", func(conn net.Conn) { _, _ = conn.Write([]byte("SSH-2.0")); held = append(held, conn) }, true},
		{"nothing behind the tunnel", func(conn net.Conn) { _ = conn.Close() }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			accepted := make(chan struct{})
			go func() {
				defer close(accepted)
				if conn, err := listener.Accept(); err == nil {
					tt.accept(conn)
				}
			}()
			if got := answers(t.Context(), listener.Addr().String()); got != tt.want {
				t.Errorf("answers = %t, want %t", got, tt.want)
			}
			<-accepted
			_ = listener.Close()
			if answers(t.Context(), listener.Addr().String()) {
				t.Error("a closed port answers")
			}
		})
	}
	for _, conn := range held {
		_ = conn.Close()
	}
}
