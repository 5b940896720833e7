"""The page that shows what runs did; :mod:`spanelectra.run_page` is the command."""
