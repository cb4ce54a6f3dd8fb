"""Makes the package's environment maps from those of the npm package `@pmndrs/assets`; see `convert`."""
