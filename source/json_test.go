package source

import (
	"encoding/json"
	"testing"
)

func TestDiagnosticJSON(t *testing.T) {
	f := NewFile("a.bt", "BEGIN {\n  é = pidd;\n}\n")
	at := Span{f, 15, 19}
	if got := at.Text(); got != "pidd" {
		t.Fatalf("the span is %q", got)
	}
	for _, tt := range []struct {
		d    *Diagnostic
		want string
	}{
		{
			Errorf(at, "unknown-name", "no %q", "pidd").Suggest("pid").Notef("a note").NoteAt(Span{f, 0, 5}, "in here"),
			`{"type":"diagnostic","severity":"error","code":"unknown-name","file":"a.bt","line":2,"column":7,"end_line":2,"end_column":11,"message":"no \"pidd\"",` +
				`"notes":[{"message":"a note"},{"file":"a.bt","line":1,"column":1,"end_line":1,"end_column":6,"message":"in here"}],` +
				`"fix":{"file":"a.bt","line":2,"column":7,"end_line":2,"end_column":11,"text":"pid","message":"did you mean \"pid\"?"}}`,
		},
		{&Diagnostic{Severity: Warning, Message: "plain"}, `{"type":"diagnostic","severity":"warning","message":"plain"}`},
	} {
		got, err := json.Marshal(tt.d)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}
