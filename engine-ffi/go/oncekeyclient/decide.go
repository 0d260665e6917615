package oncekeyclient

import (
	"encoding/json"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Why is the reason why a request has no final answer.
type Why string

const (
	// Unknown: the operation may have happened or not. Look it up; never send it under a new key.
	Unknown Why = "unknown"
	// NotStored: the operation happened, but its response is not kept. Fetch the outcome.
	NotStored Why = "notStored"
	// Bug: the request of this client is wrong; the body explains it.
	Bug Why = "bug"
	// Unauthorized: nothing happened. Refresh the credentials, then send the request again with the same key.
	Unauthorized Why = "unauthorized"
	// GaveUp: the operation is not settled. Send the request again later with the same key.
	GaveUp Why = "gaveUp"
)

// Internal values, after which RoundTrip returns the answer or tries again.
const (
	done   Why = "done"
	again  Why = "again"
	locked Why = "locked"
)

func (w Why) public() Why {
	if w == again || w == locked {
		return GaveUp
	}
	return w
}

// decide is the table of docs/clients.md: the first matching line decides. The wait is below zero when the
// server asks for none.
func decide(response *http.Response, body []byte, policy Policy) (Why, time.Duration) {
	if response == nil {
		return again, -1
	}
	if response.Header.Get(policy.Replayed) == "true" {
		return done, -1
	}
	problem := problemOf(response, body)
	wait := asked(response.Header)
	switch problem.Code {
	case "idempotency_key_locked":
		if ms := problem.RetryAfterMs; ms >= 0 {
			wait = time.Duration(min(ms, 1e9) * float64(time.Millisecond))
		}
		return locked, wait
	case "idempotency_store_unavailable", "upstream_unreachable", "idempotency_overloaded",
		"idempotency_body_unreadable", "idempotency_body_timeout":
		return again, wait
	case "idempotency_outcome_unknown":
		return Unknown, -1
	case "idempotency_response_not_stored":
		return NotStored, -1
	case "idempotency_key_mismatch", "idempotency_key_invalid", "idempotency_key_missing",
		"idempotency_scope_missing", "idempotency_body_too_large":
		return Bug, -1
	}
	switch status := response.StatusCode; {
	case status == http.StatusUnauthorized:
		return Unauthorized, -1
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly,
		status == http.StatusTooManyRequests, status >= 500:
		return again, wait
	}
	return done, -1
}

type problem struct {
	Code         string
	RetryAfterMs float64
}

func problemOf(response *http.Response, body []byte) problem {
	var members struct{ Code, RetryAfterMs any }
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if response.StatusCode < 400 || kind != "application/problem+json" || json.Unmarshal(body, &members) != nil {
		return problem{RetryAfterMs: -1}
	}
	code, _ := members.Code.(string)
	milliseconds, is := members.RetryAfterMs.(float64)
	if !is {
		milliseconds = -1
	}
	return problem{code, milliseconds}
}

// asked returns the wait of Retry-After, or -1. A date counts from the Date of the answer.
func asked(header http.Header) time.Duration {
	after := header.Get("Retry-After")
	if after != "" && strings.Trim(after, "0123456789") == "" {
		seconds, err := strconv.ParseUint(after, 10, 31)
		if err != nil { // too large for 31 bits
			seconds = 1 << 31
		}
		return time.Duration(seconds) * time.Second
	}
	until, err := http.ParseTime(after)
	from, other := http.ParseTime(header.Get("Date"))
	if err != nil || other != nil || until.Before(from) {
		return -1
	}
	return until.Sub(from)
}
