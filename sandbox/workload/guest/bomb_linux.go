package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// bombs are the ways of a renter to take more than he has rented. Each goes on until it is stopped or has had n, holds
// what it has got for a while, and tells how many that were and what stopped it.
var bombs = map[string]func(ctx context.Context, n int, at string) (int, error){
	"fork": forkBomb, "files": fileBomb, "inodes": inodeBomb, "disk": diskBomb, "log": logBomb, "connections": connectionBomb,
}

const (
	bombHolds = 2 * time.Second
	bombTakes = time.Minute // at most
)

// bomb sets one off.
func bomb(ctx context.Context, kind string, n int, at string) string {
	set, ok := bombs[kind]
	if !ok {
		return "no bomb of that kind"
	}
	ctx, cancel := context.WithTimeout(ctx, bombTakes)
	defer cancel()
	got, err := set(ctx, n, at)
	if err == nil {
		return fmt.Sprintf("%d and not stopped", got)
	}
	return fmt.Sprintf("%d until %v", got, err)
}

// forkBomb starts processes, and goes on trying when it may not.
func forkBomb(ctx context.Context, n int, _ string) (int, error) {
	program, err := writeProgram(pauseCode)
	if err != nil {
		return 0, err
	}
	defer os.Remove(program)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var children []*exec.Cmd
	defer func() {
		cancel() // ends the children
		for _, child := range children {
			_ = child.Wait()
		}
	}()
	var stopped error
	var until time.Time
	for len(children) < n && (stopped == nil || time.Now().Before(until)) {
		child := exec.CommandContext(ctx, program)
		if err := child.Start(); err == nil {
			children = append(children, child)
		} else if stopped == nil {
			stopped, until = err, time.Now().Add(bombHolds)
		}
	}
	return len(children), stopped
}

// fileBomb opens files.
func fileBomb(_ context.Context, n int, _ string) (int, error) {
	var open []*os.File
	defer func() {
		for _, file := range open {
			file.Close()
		}
	}()
	for len(open) < n {
		file, err := os.Open("/dev/null")
		if err != nil {
			time.Sleep(bombHolds)
			return len(open), err
		}
		open = append(open, file)
	}
	time.Sleep(bombHolds)
	return len(open), nil
}

// inodeBomb makes empty files in a folder. They stay.
func inodeBomb(ctx context.Context, n int, at string) (int, error) {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return 0, err
	}
	for i := range n {
		if ctx.Err() != nil {
			return i, ctx.Err()
		}
		file, err := os.Create(filepath.Join(at, fmt.Sprint(i)))
		if err != nil {
			return i, err
		}
		file.Close()
	}
	return n, nil
}

// diskBomb writes so many MiB to a file. It stays.
func diskBomb(ctx context.Context, n int, at string) (int, error) {
	file, err := os.Create(at)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	block := bytes.Repeat([]byte("disk"), 1<<18)
	for mb := range n {
		if _, err := file.Write(block); err != nil {
			return mb, err
		}
		if ctx.Err() != nil {
			return mb, ctx.Err()
		}
		time.Sleep(5 * time.Millisecond) // 200 MiB a second
	}
	return n, file.Sync()
}

// logBomb prints so many MiB.
func logBomb(ctx context.Context, n int, _ string) (int, error) {
	line := strings.Repeat("log ", 1<<10) + "\n"
	for mb := range n {
		for range 1 << 20 / len(line) {
			if _, err := os.Stdout.WriteString(line); err != nil {
				return mb, err
			}
		}
		if ctx.Err() != nil {
			return mb, ctx.Err()
		}
	}
	return n, nil
}

// connectionBomb connects to an address and keeps the connections.
func connectionBomb(ctx context.Context, n int, at string) (int, error) {
	var mu sync.Mutex
	var open []net.Conn
	var stopped error
	defer func() {
		for _, conn := range open {
			conn.Close()
		}
	}()
	var dialling sync.WaitGroup
	for range 50 {
		dialling.Go(func() {
			for range n / 50 {
				conn, err := (&net.Dialer{Timeout: reachWithin}).DialContext(ctx, "tcp", at)
				mu.Lock()
				if err == nil {
					open = append(open, conn)
				}
				stopped = errors.Join(stopped, oneLine(err, stopped))
				enough := stopped != nil
				mu.Unlock()
				if enough {
					return
				}
			}
		})
	}
	dialling.Wait()
	time.Sleep(bombHolds)
	return len(open), stopped
}

// oneLine is err, unless there is one already.
func oneLine(err, already error) error {
	if already != nil {
		return nil
	}
	return err
}
