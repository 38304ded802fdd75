package source

import "encoding/json"

// jsonPlace is how a span reads in JSON: lines and columns from 1, the end
// behind the last character.
type jsonPlace struct {
	File      string `json:"file,omitempty"`
	Line      int    `json:"line,omitempty"`
	Column    int    `json:"column,omitempty"`
	EndLine   int    `json:"end_line,omitempty"`
	EndColumn int    `json:"end_column,omitempty"`
}

func placeOf(s Span) jsonPlace {
	if !s.IsValid() {
		return jsonPlace{}
	}
	from, to := s.File.Position(s.Start), s.File.Position(s.End)
	return jsonPlace{s.File.Name, from.Line, from.Column, to.Line, to.Column}
}

type jsonNote struct {
	jsonPlace
	Message string `json:"message"`
}

type jsonFix struct {
	jsonPlace
	Text    string `json:"text"`
	Message string `json:"message,omitempty"`
}

// MarshalJSON writes d as an object: type ("diagnostic"), severity, code,
// file, line, column, end_line, end_column (all from 1 and left out where
// there is no place), message, notes and fix.
func (d *Diagnostic) MarshalJSON() ([]byte, error) {
	v := struct {
		Type     string   `json:"type"`
		Severity Severity `json:"severity"`
		Code     string   `json:"code,omitempty"`
		jsonPlace
		Message string     `json:"message"`
		Notes   []jsonNote `json:"notes,omitempty"`
		Fix     *jsonFix   `json:"fix,omitempty"`
	}{Type: "diagnostic", Severity: d.Severity, Code: d.Code, jsonPlace: placeOf(d.Span), Message: d.Message}
	for _, n := range d.Notes {
		v.Notes = append(v.Notes, jsonNote{placeOf(n.Span), n.Message})
	}
	if d.Fix != nil {
		v.Fix = &jsonFix{placeOf(d.Fix.Span), d.Fix.Text, d.Fix.Message}
	}
	return json.Marshal(v)
}
