package oncekeyhttp

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
)

// execute runs the handler under a claim and ends the claim according to its response. A panic leaves the
// claim, which becomes an orphan, and continues to the server.
func (m *Middleware) execute(w http.ResponseWriter, r *http.Request, next http.Handler, claim *oncekey.Claim, body []byte) {
	m.counters.running.Add(1)
	defer m.counters.running.Add(-1)
	attempt := &Attempt{Key: claim.Key, Number: claim.Attempt, Token: claim.Token, Checkpoint: claim.Checkpoint, claim: claim, outer: FromContext(r.Context())}
	// A client that disconnects does not stop the handler: its response is stored for the retry.
	ctx := context.WithoutCancel(context.WithValue(r.Context(), contextKey{}, attempt))
	request := r.WithContext(ctx)
	request.Body = io.NopCloser(bytes.NewReader(body))
	request.ContentLength = int64(len(body))
	request.TransferEncoding = nil
	e := &execution{middleware: m, attempt: attempt, ctx: ctx, client: w, header: http.Header{}}
	returned := false
	defer func() {
		if !returned && !e.passing {
			m.counters.abandoned.Add(1)
			m.options.Logger.ErrorContext(ctx, "oncekey: the handler panicked, its outcome is unknown")
		}
		claim.Close()
	}()
	next.ServeHTTP(e, request)
	returned = true
	e.finish()
}

// execution is the response writer of the handler. It holds the response back until it is stored, or passes
// it on after the decision that it is not stored.
type execution struct {
	middleware *Middleware
	attempt    *Attempt
	ctx        context.Context
	client     http.ResponseWriter
	// header belongs to the handler; sent is its copy from the moment when the response began.
	header, sent http.Header
	status       int
	// announced is the length in the header of a response that is held back; -1 when there is none.
	announced int64
	// written counts the bytes of the body, those that are refused too.
	written int64
	body    bytes.Buffer
	// messages counts the messages of a gRPC response, which is stored when it has at most one.
	messages *messages
	// passing says that the claim has ended, and that everything the handler writes goes to the client.
	passing bool
}

func (e *execution) Header() http.Header {
	return e.header
}

func (e *execution) WriteHeader(status int) {
	if e.status != 0 || e.passing {
		return
	}
	if status < 100 || status > 999 {
		// As the server does, which must not refuse a response that is stored.
		panic(fmt.Sprintf("oncekeyhttp: invalid status %d", status))
	}
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		e.inform(status)
		return
	}
	e.status = status
	e.sent = e.header.Clone()
	said := e.attempt.heard()
	e.announced = announced(status, e.sent)
	switch {
	case said.outcomeUnknown:
		e.abandon("the handler says so")
	case said.notExecuted || e.middleware.options.Stored.freesKey(judgedStatus(status, e.sent), e.sent):
		e.abort()
	case said.notStored || isStream(status, e.sent) || e.announced > int64(e.middleware.options.MaxResponse):
		e.completeWithoutResponse()
	default:
		if isGRPC(e.sent) {
			e.messages = &messages{}
		}
		return
	}
	e.pass()
}

// announced returns the length that a header announces for the body; -1 when it announces none. A response of a
// status without a body may announce the length of another one.
func announced(status int, header http.Header) int64 {
	length, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64)
	if err != nil || length < 0 || bodiless(status) {
		return -1
	}
	return length
}

// inform passes an informational response on at once, with the current headers. The final response follows,
// and a retry gets only that.
func (e *execution) inform(status int) {
	header := e.client.Header()
	outer := header.Clone()
	put(header, fields(e.header))
	e.client.WriteHeader(status)
	clear(header)
	maps.Copy(header, outer)
}

// isStream says whether clients read a response while it grows, or whether it has no body at all.
func isStream(status int, header http.Header) bool {
	contentType := strings.ToLower(header.Get("Content-Type"))
	for _, stream := range []string{"text/event-stream", "multipart/x-mixed-replace", "application/grpc-web-text"} {
		if strings.HasPrefix(contentType, stream) {
			return true
		}
	}
	return status == http.StatusSwitchingProtocols
}

func (e *execution) Write(data []byte) (int, error) {
	if e.status == 0 {
		e.WriteHeader(http.StatusOK)
	}
	if e.passing {
		return e.client.Write(data)
	}
	if bodiless(e.status) {
		return 0, http.ErrBodyNotAllowed
	}
	e.written += int64(len(data))
	if e.announced >= 0 && e.written > e.announced {
		return 0, http.ErrContentLength
	}
	e.body.Write(data)
	streams := e.messages != nil && e.messages.streamsAfter(data)
	if streams || e.body.Len() > e.middleware.options.MaxResponse {
		e.completeWithoutResponse()
		e.pass()
	}
	return len(data), nil
}

// Flush flushes a response that is passed on. A response that is to be stored is not sent in pieces.
func (e *execution) Flush() {
	e.FlushError()
}

// FlushError is for http.ResponseController.
func (e *execution) FlushError() error {
	if !e.passing {
		return nil
	}
	return http.NewResponseController(e.client).Flush()
}

// Unwrap is for http.ResponseController, which uses it to set deadlines and full duplex of the connection.
// The middleware does not see writes to the unwrapped writer.
func (e *execution) Unwrap() http.ResponseWriter {
	return e.client
}

// Hijack completes the operation without a response. When it fails, as it does over HTTP/2, the handler answers
// as usual.
func (e *execution) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	connection, buffered, err := http.NewResponseController(e.client).Hijack()
	if err == nil && !e.passing {
		e.completeWithoutResponse()
		e.passing = true
	}
	return connection, buffered, err
}

// pass sends the held part of the response, and from now on everything as it comes.
func (e *execution) pass() {
	e.passing = true
	put(e.client.Header(), fields(e.sent))
	e.client.WriteHeader(e.status)
	if e.body.Len() > 0 {
		e.client.Write(e.body.Bytes())
		e.body = bytes.Buffer{}
	}
}

// finish ends the claim according to the held response, and sends it.
func (e *execution) finish() {
	if e.status == 0 && !e.passing {
		e.WriteHeader(http.StatusOK)
	}
	if e.passing {
		e.passTrailers()
		return
	}
	said := e.attempt.heard()
	switch {
	case said.outcomeUnknown:
		e.abandon("the handler says so")
	case said.notExecuted:
		e.abort()
	case said.notStored:
		e.completeWithoutResponse()
	case e.announced >= 0 && e.written != e.announced:
		e.abandon("the response body is not as long as its Content-Length")
	default:
		e.store()
		return
	}
	e.pass()
	e.passTrailers()
}

// store stores the held response, and sends it.
func (e *execution) store() {
	response := e.response()
	encoded, err := response.without(e.middleware.dropped).Encode()
	if err != nil || len(encoded) > e.middleware.options.MaxResponse {
		e.completeWithoutResponse()
	} else if kept, err := e.complete(encoded); err != nil {
		e.failed(err)
	} else if !kept {
		e.middleware.counters.notStored.Add(1)
	}
	response.send(e.client)
}

// passTrailers passes on the trailers that the handler has set since the response began.
func (e *execution) passTrailers() {
	for name, values := range e.trailers() {
		e.client.Header()[http.TrailerPrefix+name] = values
	}
}

// trailers returns the trailers that the response declares, and those with the prefix of net/http.
func (e *execution) trailers() http.Header {
	trailers := http.Header{}
	for _, value := range e.sent["Trailer"] {
		for name := range strings.SplitSeq(value, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if values, set := e.header[name]; set {
				trailers[name] = values
			}
		}
	}
	for name, values := range e.header {
		if plain, prefixed := strings.CutPrefix(name, http.TrailerPrefix); prefixed {
			trailers[http.CanonicalHeaderKey(plain)] = values
		}
	}
	return trailers
}

// response returns the handler's answer: headers from the moment when it began, trailers from now.
func (e *execution) response() *Response {
	body := e.body.Bytes()
	trailers := e.trailers()
	for name := range e.sent {
		if _, trails := trailers[name]; trails || strings.HasPrefix(name, http.TrailerPrefix) {
			delete(e.sent, name)
		}
	}
	// HTTP/1.1 sends only the trailers that this header names.
	e.sent.Del("Trailer")
	for _, field := range fields(trailers) {
		e.sent.Add("Trailer", field.Name)
	}
	// The server would guess the type from the first bytes; the guess is stored, too.
	if _, set := e.sent["Content-Type"]; !set && len(body) > 0 && e.sent.Get("Content-Encoding") == "" {
		e.sent.Set("Content-Type", http.DetectContentType(body))
	}
	response := NewResponse(e.status, e.sent, body)
	response.Trailer = fields(trailers)
	return response
}

// ttl returns the TTL of the response; 0 means the TTL of the engine.
func (e *execution) ttl() time.Duration {
	if ttl := e.attempt.heard().ttl; ttl > 0 {
		return ttl
	}
	if ttl := e.middleware.options.TTL; ttl > 0 {
		return max(ttl, time.Millisecond)
	}
	return 0
}

func (e *execution) complete(encoded []byte) (kept bool, err error) {
	if ttl := e.ttl(); ttl > 0 {
		return e.attempt.claim.CompleteFor(e.ctx, encoded, ttl)
	}
	return e.attempt.claim.Complete(e.ctx, encoded)
}

// abandon leaves the outcome unknown. It runs before the client gets the answer.
func (e *execution) abandon(reason string) {
	e.attempt.claim.Close()
	e.middleware.counters.abandoned.Add(1)
	e.middleware.options.Logger.WarnContext(e.ctx, "oncekey: the outcome is unknown", "reason", reason)
}

func (e *execution) abort() {
	if err := e.attempt.claim.Abort(e.ctx); err != nil {
		e.failed(err)
		return
	}
	e.middleware.counters.notExecuted.Add(1)
}

func (e *execution) completeWithoutResponse() {
	var err error
	if ttl := e.ttl(); ttl > 0 {
		err = e.attempt.claim.CompleteWithoutResponseFor(e.ctx, ttl)
	} else {
		err = e.attempt.claim.CompleteWithoutResponse(e.ctx)
	}
	if err != nil {
		e.failed(err)
		return
	}
	e.middleware.counters.notStored.Add(1)
}

// failed counts and logs a failure to end the claim. The client still gets its answer. execute closes the
// claim; after a reopen the operation is completed if its group reached the disk, and an orphan if not.
func (e *execution) failed(err error) {
	e.middleware.counters.completeFailed.Add(1)
	e.middleware.options.Logger.ErrorContext(e.ctx, "oncekey: the response was not recorded", "error", err)
}
