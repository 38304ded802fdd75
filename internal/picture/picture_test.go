package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestSVG(t *testing.T) {
	text := svg([]string{"# a command", "x < y & \x01 z", strings.Repeat("w", 25)}, 20)
	d := xml.NewDecoder(strings.NewReader(text))
	rows := 0
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "text" {
			rows++
		}
	}
	if rows != 4 {
		t.Errorf("%d rows, want 4 (one line is too long):\n%s", rows, text)
	}
	if err := picture("", "", 3, nil); err == nil {
		t.Error("no command, and no error")
	}
}
