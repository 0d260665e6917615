package oncekeyhttp

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// isGRPC says whether the content type of a request or a response is one of gRPC or gRPC-Web.
func isGRPC(header http.Header) bool {
	const prefix = "application/grpc"
	kind := header.Get("Content-Type")
	if len(kind) < len(prefix) || !strings.EqualFold(kind[:len(prefix)], prefix) {
		return false
	}
	return len(kind) == len(prefix) || strings.ContainsRune("+-; ", rune(kind[len(prefix)]))
}

// grpcCode returns the gRPC code of a refusal. Source: https://grpc.io/docs/guides/status-codes/.
func grpcCode(code string) int {
	switch code {
	case timeoutCode:
		return 4 // DEADLINE_EXCEEDED
	case tooLargeCode:
		return 8 // RESOURCE_EXHAUSTED
	case lockedCode:
		return 10 // ABORTED
	case mismatchCode:
		return 6 // ALREADY_EXISTS
	case outcomeUnknownCode, notStoredCode:
		return 9 // FAILED_PRECONDITION
	case unavailableCode, overloadedCode:
		return 14 // UNAVAILABLE
	default:
		return 3 // INVALID_ARGUMENT
	}
}

// writeGRPC answers a call without a message: its status is among the headers.
func (r *rejection) writeGRPC(w http.ResponseWriter, contentType string) {
	header := w.Header()
	header.Set("Content-Type", contentType)
	header.Set("Grpc-Status", strconv.Itoa(grpcCode(r.code)))
	header.Set("Grpc-Message", grpcMessage(r.code+": "+r.detail))
	// The time after which a client with a retry policy tries again. Source: gRFC A6.
	switch {
	case r.wait > 0:
		header.Set("Grpc-Retry-Pushback-Ms", strconv.FormatInt(r.wait.Milliseconds(), 10))
	case r.retryAfter:
		header.Set("Grpc-Retry-Pushback-Ms", strconv.FormatInt(time.Second.Milliseconds(), 10))
	}
	w.WriteHeader(http.StatusOK)
}

// grpcMessage returns a text as grpc-message carries it. Source: the protocol of gRPC over HTTP/2,
// "Status-Message".
func grpcMessage(text string) string {
	var out strings.Builder
	for i := range len(text) {
		if c := text[i]; c >= ' ' && c <= '~' && c != '%' {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	return out.String()
}

// judgedStatus returns the status that decides a policy. For a gRPC call whose status is among the headers,
// it is the corresponding HTTP status. Source: google.rpc.Code.
func judgedStatus(status int, header http.Header) int {
	said := header.Get("Grpc-Status")
	if said == "" || !isGRPC(header) {
		return status
	}
	switch said {
	case "0":
		return http.StatusOK
	case "3", "9", "11":
		return http.StatusBadRequest
	case "16":
		return http.StatusUnauthorized
	case "7":
		return http.StatusForbidden
	case "5":
		return http.StatusNotFound
	case "6", "10":
		return http.StatusConflict
	case "8":
		return http.StatusTooManyRequests
	case "1":
		return 499
	case "12":
		return http.StatusNotImplemented
	case "14":
		return http.StatusServiceUnavailable
	case "4":
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}

// messages of a gRPC body: one byte of flags, four of length, the message.
type messages struct {
	prefix []byte
	left   uint32 // the missing bytes of the message that has begun
	begun  int
}

// streamsAfter reads the next piece, and returns true once a second message has begun: the call is a stream.
func (m *messages) streamsAfter(data []byte) bool {
	// The flag of gRPC-Web for trailers, which do not count as a message.
	const trailers = 0x80
	for len(data) > 0 {
		if m.left > 0 {
			read := min(uint64(m.left), uint64(len(data)))
			m.left -= uint32(read)
			data = data[read:]
			continue
		}
		m.prefix = append(m.prefix, data[0])
		data = data[1:]
		if len(m.prefix) == 1 && m.prefix[0]&trailers == 0 {
			m.begun++
		}
		if len(m.prefix) == 5 {
			m.left = binary.BigEndian.Uint32(m.prefix[1:])
			m.prefix = m.prefix[:0]
		}
	}
	return m.begun > 1
}
