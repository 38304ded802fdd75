package main

import (
	"bufio"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	out := flag.String("o", "", "write the picture to `FILE`")
	lines := flag.Int("lines", 16, "show so many lines, then end the command")
	show := flag.String("show", "", "the command as the picture shows it")
	flag.Parse()
	if err := picture(*out, *show, *lines, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

func picture(out, show string, most int, args []string) error {
	if len(args) == 0 || out == "" {
		return fmt.Errorf("usage: picture -o FILE [-show TEXT] COMMAND [ARGS]")
	}
	if show == "" {
		show = strings.Join(args, " ")
	}
	cmd := exec.Command(args[0], args[1:]...)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := []string{"# " + show}
	in := bufio.NewScanner(pipe)
	for len(lines) < most && in.Scan() {
		lines = append(lines, in.Text())
	}
	if err := cmd.Process.Signal(os.Interrupt); err == nil {
		_, _ = io.Copy(io.Discard, pipe)
	}
	_ = cmd.Wait() // a command that was interrupted may well fail
	if len(lines) < 2 {
		return fmt.Errorf("%q printed nothing", args)
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(f, svg(lines, 110)); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// svg draws lines as a terminal of at most so many columns; longer lines wrap.
func svg(lines []string, columns int) string {
	var rows []string
	command := 0
	for i, line := range lines {
		runes := []rune(strings.ReplaceAll(line, "\t", "        "))
		for len(runes) > columns {
			rows = append(rows, string(runes[:columns]))
			runes = runes[columns:]
		}
		rows = append(rows, string(runes))
		if i == 0 {
			command = len(rows)
		}
	}
	const charWidth, lineHeight, margin, bar = 8, 18, 16, 28
	width := columns*charWidth + 2*margin
	height := len(rows)*lineHeight + 2*margin + bar
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d">
<rect width="100%%" height="100%%" rx="8" fill="#16181d"/>
<circle cx="20" cy="18" r="5" fill="#ff5f57"/><circle cx="38" cy="18" r="5" fill="#febc2e"/><circle cx="56" cy="18" r="5" fill="#28c840"/>
<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="13" fill="#d7dae0" xml:space="preserve">
`, width, height, width, height)
	for i, row := range rows {
		color := ""
		if i < command {
			color = ` fill="#8fd18f"`
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d"%s>`, margin, bar+margin+i*lineHeight+8, color)
		_ = xml.EscapeText(&b, []byte(row))
		b.WriteString("</text>\n")
	}
	b.WriteString("</g>\n</svg>\n")
	return b.String()
}
