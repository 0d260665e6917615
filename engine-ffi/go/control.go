package oncekey

// #include <oncekey.h>
import "C"

import (
	"runtime"
	"unsafe"
)

// ControlOptions of a control socket. Zero values mean the defaults.
type ControlOptions struct {
	// Path of the socket. Default: a name made from the path of the store, in /run/oncekey where that can be
	// written, else in $XDG_RUNTIME_DIR/oncekey, else in oncekey-UID in the directory for temporary files. A
	// store in a database has no such name: its path must be set.
	Path string
	// Backups is the directory in which operators may take backups, each in a new directory. Default: they may
	// not.
	Backups string
	// AuditLog is the file that gets a line before each change that an operator makes, and one after it.
	// Default: none.
	AuditLog string
	// ReadOnly refuses all changes on the socket.
	ReadOnly bool
	// ShowResponses lets operators read stored responses.
	ShowResponses bool
}

// ControlSocket lets operators reach this process with the program oncekey until the engine is closed.
// oncekey stats --store DIR and the other commands find the socket by the directory of the store. nil means
// the default options.
//
// It is a Unix socket with mode 0600 on which a thread of the C library answers, for the user of this process
// and root. An engine offers one socket; a second call returns [ErrInvalidInput]. A library that was built
// without the feature control-socket returns [ErrUnsupported]; the library of a release has the feature.
func (e *Engine) ControlSocket(options *ControlOptions) error {
	var pinner runtime.Pinner
	defer pinner.Unpin()
	var c C.oncekey_control_options
	c.size = C.uint32_t(unsafe.Sizeof(c))
	if options != nil {
		c.path = slice(options.Path, &pinner)
		c.backups = slice(options.Backups, &pinner)
		c.audit_log = slice(options.AuditLog, &pinner)
		if options.ReadOnly {
			c.flags |= C.ONCEKEY_CONTROL_READ_ONLY
		}
		if options.ShowResponses {
			c.flags |= C.ONCEKEY_CONTROL_SHOW_RESPONSES
		}
	}
	return e.direct(func(engine C.oncekey_engine, detail *C.oncekey_error) C.int32_t {
		return C.oncekey_engine_control_socket(engine, &c, detail)
	})
}
