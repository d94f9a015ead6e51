// Command guest is the program inside the sandbox's workload image. It serves a page that says what
// the renter got, echoes over HTTP and UDP, offers a small SSH session, and fails in the ways
// renters' programs fail: on request it exits, ignores SIGTERM, fills the disk, or asks for too much memory.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
)

func main() {
	var (
		web      = flag.String("http", ":8080", "serve the page on this address")
		echo     = flag.String("udp", ":9090", "echo datagrams on this address")
		shell    = flag.String("ssh", ":22", "serve SSH on this address, with the password of SSH_PASSWORD; off where that is not set")
		stubborn = flag.Bool("ignore-sigterm", false, "go on when asked to end")
		exit     = flag.Int("exit", -1, "exit at once with this code")
		fill     filling
		nagged   = flag.String("nag", "", `try to reach these from the first moment on, as "tcp:192.168.1.1:80", separated by commas`)
		attempts = flag.Bool("attempts", false, "try what a renter may not, tell and end")
		pid      = flag.Int("pid", 0, "try it on this process, too")
		file     = flag.String("file", "", "and on this file")
		whoami   = flag.Bool("whoami", false, "print the user's number and end")
		leave    = flag.String("escape", "", "leave a chroot for this file, print the number of the error and end")
	)
	flag.StringVar(&fill.paths, "write", "", "write these files first, separated by commas")
	flag.StringVar(&fill.text, "text", "", "begin what is written with this")
	flag.IntVar(&fill.mb, "mb", 0, "write so many MiB")
	flag.IntVar(&fill.rate, "rate", 0, "write so many MiB a second; 0: as fast as it goes")
	flag.IntVar(&fill.files, "files", 0, "make so many empty files, too")
	flag.BoolVar(&fill.unlink, "unlink", false, "remove what is written, and keep it open")
	flag.Parse()
	if *exit >= 0 {
		fmt.Printf("exiting with code %d as told\n", *exit)
		os.Exit(*exit)
	}
	switch {
	case *attempts:
		_ = json.NewEncoder(os.Stdout).Encode(tryAll(*pid, *file))
		return
	case *whoami:
		fmt.Println(os.Geteuid())
		return
	case *leave != "":
		number := syscall.Errno(0)
		if err := escape(*leave); !errors.As(err, &number) && err != nil {
			number = syscall.EIO
		}
		fmt.Println(int(number))
		return
	}
	ctx, stop := untilTold(*stubborn)
	defer stop()
	for target := range strings.SplitSeq(*nagged, ",") {
		if target != "" {
			go nag(ctx, target)
		}
	}
	written, err := fill.write()
	for _, file := range written {
		defer file.Close()
	}
	if err != nil {
		exitWhenFull(err)
		fmt.Fprintln(os.Stderr, "writing what was asked for:", err)
		os.Exit(1)
	}
	password := os.Getenv("SSH_PASSWORD")
	if password == "" {
		*shell = ""
	}
	if err := run(ctx, *web, *echo, *shell, password); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ended as asked")
}

// untilTold gives a context that ends on SIGTERM or SIGINT, or on neither for a stubborn program.
func untilTold(stubborn bool) (context.Context, context.CancelFunc) {
	if stubborn {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
		return context.WithCancel(context.Background())
	}
	return signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
}

func run(ctx context.Context, web, echo, shell, password string) error {
	open, err := openDoors(ctx, web, echo, shell)
	if err != nil {
		return err
	}
	return open.serve(ctx, password)
}

// doors are the ports the program listens on. shell is nil where there is no SSH.
type doors struct {
	web   net.Listener
	echo  net.PacketConn
	shell net.Listener
}

// openDoors listens on the addresses given; shell may be "".
func openDoors(ctx context.Context, web, echo, shell string) (open doors, err error) {
	var listen net.ListenConfig
	if open.web, err = listen.Listen(ctx, "tcp", web); err != nil {
		return doors{}, err
	}
	if open.echo, err = listen.ListenPacket(ctx, "udp", echo); err != nil {
		return doors{}, err
	}
	if shell == "" {
		return open, nil
	}
	if open.shell, err = listen.Listen(ctx, "tcp", shell); err != nil {
		return doors{}, err
	}
	return open, nil
}

// serve answers at every door until ctx ends or one of the servers fails.
func (d doors) serve(ctx context.Context, password string) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var servers sync.WaitGroup
	serve := func(name string, server func() error) {
		servers.Go(func() {
			if err := server(); err != nil {
				fail(fmt.Errorf("serving %s: %w", name, err))
			}
		})
	}
	serve("http", func() error { return servePages(ctx, d.web) })
	serve("udp", func() error { return echoDatagrams(ctx, d.echo) })
	if d.shell != nil {
		serve("ssh", func() error { return serveShell(ctx, d.shell, password) })
	}
	servers.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func servePages(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: logged(pages())}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	fmt.Println("serving http on", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func echoDatagrams(ctx context.Context, conn net.PacketConn) error {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	fmt.Println("echoing udp on", conn.LocalAddr())
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Printf("udp %s %d bytes\n", from, n)
		_, _ = conn.WriteTo(buffer[:n], from)
	}
}
