package signin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
)

// maxGuests bounds the connections that are open at one time.
const maxGuests = 64

// site is the server a browser returns to.
type site struct {
	run  func() // serves until stop
	stop func() // lets an answer that is under way finish, but not for long
}

func (r *returning) site(listener net.Listener, times timing) site {
	var guests crowd
	server := &http.Server{
		Handler:        r,
		ReadTimeout:    times.header,
		WriteTimeout:   times.finish + times.header, // the callback is held
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // what strangers send is no news
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, guestKey{}, guests.enter(conn))
		},
		ConnState: func(conn net.Conn, state http.ConnState) {
			if state == http.StateClosed || state == http.StateHijacked {
				guests.leave(conn)
			}
		},
	}
	server.SetKeepAlivesEnabled(false)
	return site{
		run: func() { _ = server.Serve(listener) }, // returns because of stop
		stop: func() {
			ctx, cancel := context.WithTimeout(context.Background(), times.farewell)
			defer cancel()
			if server.Shutdown(ctx) != nil {
				_ = server.Close()
			}
		},
	}
}

// crowd keeps a flood of connections from shutting the browser out: when there are too many, the
// oldest goes, unless it waits for the end of the sign-in.
type crowd struct {
	mu     sync.Mutex
	guests []*guest // oldest first
}

type guestKey struct{}

// guest is one connection.
type guest struct {
	crowd *crowd
	conn  net.Conn
	stays bool
}

func (c *crowd) enter(conn net.Conn) *guest {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.guests) >= maxGuests {
		if i := slices.IndexFunc(c.guests, func(g *guest) bool { return !g.stays }); i >= 0 {
			_ = c.guests[i].conn.Close()
			c.guests = slices.Delete(c.guests, i, i+1)
		}
	}
	g := &guest{crowd: c, conn: conn}
	c.guests = append(c.guests, g)
	return g
}

func (c *crowd) leave(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guests = slices.DeleteFunc(c.guests, func(g *guest) bool { return g.conn == conn })
}

// stay keeps the connection open whoever else comes.
func (g *guest) stay() {
	g.crowd.mu.Lock()
	defer g.crowd.mu.Unlock()
	g.stays = true
}

// parseOnce reads a query in which nothing is said twice.
func parseOnce(rawQuery string) (map[string]string, error) {
	values, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, errors.New("it cannot be read")
	}
	once := make(map[string]string, len(values))
	for name, all := range values {
		if len(all) != 1 {
			return nil, errors.New("it says something twice")
		}
		once[name] = all[0]
	}
	return once, nil
}
