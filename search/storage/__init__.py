"""Where a study is stored: a journal file or a database."""
