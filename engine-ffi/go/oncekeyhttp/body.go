package oncekeyhttp

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// budget is the memory that all bodies may hold together, in bytes.
type budget struct {
	limit int64
	held  atomic.Int64
}

func (b *budget) take(bytes int64) bool {
	if b.held.Add(bytes) > b.limit {
		b.held.Add(-bytes)
		return false
	}
	return true
}

// body of a request, read to its end. It takes memory from the budget for the bytes that arrive, not for the
// length that the client announces.
type body struct {
	budget *budget
	taken  int64 // from the budget
	bytes  []byte
}

func (b *body) free() {
	b.budget.held.Add(-b.taken)
	b.taken = 0
}

// firstBytes is the first room of a body, in bytes.
const firstBytes = 4096

// read reads the body of a request, up to limit bytes. It stops when the client sends nothing for as long as
// idle.
func (b *body) read(w http.ResponseWriter, r *http.Request, limit int64, idle time.Duration) *rejection {
	if r.ContentLength > limit {
		return bodyTooLarge(limit)
	}
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	patience := newPatience(w, r, idle)
	var outer *http.MaxBytesError
	for {
		full := len(b.bytes) == cap(b.bytes)
		end := int64(len(b.bytes)) == limit || int64(len(b.bytes)) == r.ContentLength
		if full && !end && !b.grow(r.ContentLength, limit) {
			return bodiesOverBudget()
		}
		into := b.bytes[len(b.bytes):cap(b.bytes)]
		var beyond [1]byte
		if end {
			into = beyond[:]
		}
		patience.renew()
		count, err := r.Body.Read(into)
		if int64(len(b.bytes)+count) > limit {
			return bodyTooLarge(limit)
		}
		if end && count > 0 { // a handler outside replaced the body
			if full && !b.grow(-1, limit) {
				return bodiesOverBudget()
			}
			b.bytes = append(b.bytes, beyond[0])
		} else {
			b.bytes = b.bytes[:len(b.bytes)+count]
		}
		switch {
		case err == nil:
		case err == io.EOF:
			return nil
		case errors.As(err, &outer):
			return bodyTooLarge(outer.Limit)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return bodyTimeout()
		default:
			return bodyUnreadable()
		}
	}
}

// grow doubles the room, up to the limit or the announced length. It returns false when the budget does not
// allow it.
func (b *body) grow(announced, limit int64) bool {
	if announced > int64(len(b.bytes)) {
		limit = min(limit, announced)
	}
	room := min(max(2*int64(cap(b.bytes)), firstBytes), limit)
	if !b.budget.take(room - b.taken) {
		return false
	}
	b.taken = room
	grown := make([]byte, len(b.bytes), room)
	copy(grown, b.bytes)
	b.bytes = grown
	return true
}

// patience limits how long a client may send nothing: it moves the read deadline of the connection before
// each read. The server itself removes the deadline at the end of a body.
type patience struct {
	connection *http.ResponseController
	idle       time.Duration
	last       time.Time // the server's deadline for the whole request; zero when it has none
}

func newPatience(w http.ResponseWriter, r *http.Request, idle time.Duration) patience {
	p := patience{connection: http.NewResponseController(w), idle: idle}
	if server, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok && server.ReadTimeout > 0 {
		p.last = time.Now().Add(server.ReadTimeout)
	}
	return p
}

func (p *patience) renew() {
	until := time.Now().Add(p.idle)
	if !p.last.IsZero() && p.last.Before(until) {
		until = p.last
	}
	// A writer without deadlines serves bodies that do not wait for a client, or has a limit of its own.
	_ = p.connection.SetReadDeadline(until)
}
